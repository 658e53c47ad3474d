// What a back end does with azure-iothub.

import assert from 'node:assert/strict';
import test from 'node:test';
import common from 'azure-iot-common';
import device from 'azure-iot-device';
import transports from 'azure-iot-device-mqtt';
import service from 'azure-iothub';
import { call, fields, leftOut, opened, ready, registry } from './hub.js';

const { errors } = common;
const only = { skip: leftOut };

/** Whether the error is of this type, with Azure's code in the answer it came in. */
function typed(type, code) {
  return (error) => {
    assert.equal(error.constructor.name, type.name, String(error));
    if (code) assert.match(error.responseBody, code);
    return true;
  };
}

test('a device is created, read, updated, listed and deleted', only, async () => {
  const hub = registry();
  const deviceId = 'node-made';
  const made = (await hub.create({ deviceId })).responseBody;
  assert.equal(made.status, 'enabled');
  // The SDK sends empty keys: the hub makes them.
  assert.equal(Buffer.from(made.authentication.symmetricKey.primaryKey, 'base64').length, 32);
  await assert.rejects(hub.create({ deviceId }), typed(errors.DeviceAlreadyExistsError));

  const key = Buffer.alloc(32, 7).toString('base64');
  const updated = (
    await hub.update({ deviceId, authentication: { type: 'sas', symmetricKey: { primaryKey: key, secondaryKey: key } } })
  ).responseBody;
  assert.equal(updated.authentication.symmetricKey.primaryKey, key);
  const read = (await hub.get(deviceId)).responseBody;
  assert.equal(read.etag, updated.etag);
  assert.notEqual(read.etag, made.etag);
  const listed = (await hub.list()).responseBody.map((entry) => entry.deviceId);
  assert.ok(listed.includes(deviceId) && listed.includes('d1'));

  const string = `HostName=${fields('d1').HostName};DeviceId=${deviceId};SharedAccessKey=${key}`;
  const client = device.Client.fromConnectionString(string, transports.Mqtt);
  await client.open();
  await client.close();
  await hub.delete(deviceId);
  await assert.rejects(hub.get(deviceId), typed(errors.DeviceNotFoundError));
  await assert.rejects(hub.delete(deviceId), typed(errors.DeviceNotFoundError));
  await assert.rejects(hub.update({ deviceId }), typed(errors.DeviceNotFoundError));
});

test('many devices are added, changed and removed at once', only, async () => {
  const hub = registry();
  const ids = ['many-1', 'many-2'];
  const devices = ids.map((deviceId) => ({ deviceId }));
  assert.equal((await hub.addDevices(devices)).responseBody.isSuccessful, true);
  await assert.rejects(hub.addDevices(devices), (error) => {
    const { errors: failed } = JSON.parse(error.responseBody);
    assert.deepEqual(failed.map((one) => [one.deviceId, one.errorCode]), ids.map((id) => [id, 'DeviceAlreadyExists']));
    return true;
  });
  await hub.updateDevices(devices.map((one) => ({ ...one, status: 'disabled' })), true);
  const read = await Promise.all(ids.map(async (id) => (await hub.get(id)).responseBody));
  assert.deepEqual(read.map((one) => one.status), ['disabled', 'disabled']);
  const { responseBody: counted } = await hub.getRegistryStatistics();
  assert.equal(counted.totalDeviceCount, counted.enabledDeviceCount + counted.disabledDeviceCount);
  await hub.removeDevices(read, false);
  await assert.rejects(hub.get('many-1'), typed(errors.DeviceNotFoundError));
});

test('twins: a stale etag, a bad patch, an unknown device', only, async () => {
  const hub = registry();
  const { etag } = (await hub.getTwin('offline')).responseBody;
  const twin = (await hub.updateTwin('offline', { tags: { place: 'here' } }, etag)).responseBody;
  assert.deepEqual(twin.tags, { place: 'here' });
  await assert.rejects(hub.updateTwin('offline', { tags: { place: 'there' } }, etag), typed(errors.InvalidEtagError));
  // The twin's own method sends its etag.
  await twin.update({ tags: { place: null } });
  await assert.rejects(twin.update({ tags: { 'a.b': 1 } }), typed(errors.ArgumentError, /ArgumentInvalid/));
  await assert.rejects(hub.getTwin('nobody'), typed(errors.DeviceNotFoundError));
});

test('methods that cannot be answered', only, async (t) => {
  // The SDK finds no code in the body that methods have, and says "Not found" to every 404.
  const offline = typed(Error, /\\"errorCode\\":404103/);
  await assert.rejects(call('offline', 'm', 1), offline);
  await assert.rejects(call('nobody', 'm', 1), typed(Error, /\\"errorCode\\":404001/));
  await assert.rejects(call('offline', 'a/b', 1), typed(errors.ArgumentError));
  // Connected, but it takes no methods.
  await opened(t, device.Client.fromConnectionString(ready.devices.offline, transports.Mqtt));
  await assert.rejects(call('offline', 'm', 1), offline);
});

test('a wrong key, an expired token', only, async () => {
  const wrong = ready.serviceConnectionString.replace(/SharedAccessKey=.*/, `SharedAccessKey=${Buffer.alloc(32).toString('base64')}`);
  await assert.rejects(service.Registry.fromConnectionString(wrong).list(), typed(errors.UnauthorizedError));
  const key = ready.serviceConnectionString.split('SharedAccessKey=')[1];
  const until = (seconds) => service.SharedAccessSignature.create(ready.hostName, 'iothubowner', key, seconds).toString();
  const now = Math.floor(Date.now() / 1000);
  await service.Registry.fromSharedAccessSignature(until(now + 60)).list();
  await assert.rejects(service.Registry.fromSharedAccessSignature(until(now - 60)).list(), typed(errors.UnauthorizedError, /expired/));
});

test('query paging', only, async () => {
  const query = registry().createQuery('SELECT * FROM devices', 2);
  const pages = [];
  while (query.hasMoreResults) {
    const { result } = await query.nextAsTwin();
    assert.ok(result.length <= 2);
    pages.push(result.map((twin) => twin.deviceId));
  }
  const ids = pages.flat();
  assert.ok(pages.length >= 4, `${pages.length} pages`);
  assert.equal(new Set(ids).size, ids.length);
  for (const name of Object.keys(ready.devices)) assert.ok(ids.includes(name), name);
  const one = await registry().createQuery("SELECT * FROM devices WHERE deviceId = 'd1'").nextAsTwin();
  assert.deepEqual(one.result.map((twin) => twin.deviceId), ['d1']);
  // Rows that are no twins.
  const counted = await registry().createQuery("SELECT COUNT() AS n FROM devices WHERE deviceId IN ['d1', 'd2']").next();
  assert.deepEqual(counted.result, [{ n: 2 }]);
  await assert.rejects(registry().createQuery('SELECT nonsense').nextAsTwin(), typed(errors.ArgumentError));
});

test('an automatic configuration sets desired properties, and takes them back', only, async () => {
  const hub = registry();
  const desired = async () => (await hub.getTwin('offline')).responseBody.properties.desired;
  const configuration = {
    id: 'node-rollout',
    schemaVersion: '1.0',
    labels: {},
    content: { deviceContent: { 'properties.desired.firmware': { fwVersion: '1.0.1' } } },
    targetCondition: "deviceId = 'offline'",
    priority: 10,
    metrics: { queries: {}, results: {} },
  };
  await hub.addConfiguration(configuration);
  assert.deepEqual((await desired()).firmware, { fwVersion: '1.0.1' });
  const shown = (await hub.getConfiguration('node-rollout')).responseBody;
  assert.equal(shown.systemMetrics.results.targetedCount, 1);
  assert.ok((await hub.getConfigurations()).responseBody.some((entry) => entry.id === 'node-rollout'));
  await hub.removeConfiguration('node-rollout');
  assert.equal((await desired()).firmware, undefined);
  await assert.rejects(hub.getConfiguration('node-rollout'), typed(Error, /ConfigurationNotFound/));
});
