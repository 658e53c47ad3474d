// End to end: an unmodified client of azure-iot-device, or the package's own connection, against a real hub and its service SDK.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import device from 'azure-iot-device';
import transports from 'azure-iot-device-mqtt';
import mqtt from 'mqtt';
import { attach, Device } from 'twinflash';
import { ca, call, fields, ready, registry, reported, withSdk } from './hub.js';
import { directory, ended, eventually, serve, updaterIn } from './support.js';

async function clientFor(t, name, transport) {
  // Over WebSockets the SDK knows port 443 only, and takes no other from the connection string.
  const { SharedAccessKey } = fields(name);
  const string = transport === transports.MqttWs ? `HostName=localhost;DeviceId=${name};SharedAccessKey=${SharedAccessKey}` : ready.devices[name];
  const client = device.Client.fromConnectionString(string, transport);
  t.after(() => client.close().catch(() => {}));
  await client.setOptions({ ca });
  return client;
}

/** Another connection with the same id, which is gone again at once: the hub drops the first. */
function takeOver(name) {
  const { HostName: host, SharedAccessKey: key } = fields(name);
  const [hostname, port = 8883] = host.split(':');
  const password = device.SharedAccessSignature.create(hostname, name, key, Math.floor(Date.now() / 1000) + 60).toString();
  return new Promise((resolve, reject) => {
    const other = mqtt.connect(`mqtts://${hostname}:${port}`, {
      ca, clientId: name, username: `${hostname}/${name}/?api-version=2021-04-12`, password, clean: false, protocolVersion: 4,
      protocolId: 'MQTT', reconnectPeriod: 0,
    });
    other.once('error', reject);
    other.once('connect', () => other.end(false, {}, resolve));
  });
}

for (const [name, transport] of [['mqtt', transports.Mqtt], ['websockets', transports.MqttWs]]) {
  test(`an update over azure-iot-device: ${name}`, withSdk, async (t) => {
    const base = directory(t);
    const { image, ask } = await serve(t);
    const client = await clientFor(t, name, transport);
    // The application's own, before and after.
    client.onDeviceMethod('reboot', (request, response) => response.send(200, { said: request.payload }, () => {}));
    const updater = updaterIn(t, base);
    const link = await attach(client, updater);
    client.onDeviceMethod('late', (request, response) => response.send(201, null, () => {}));
    await assert.rejects(attach(client, updater), /detach/);

    assert.deepEqual(await call(name, 'reboot', 1), { status: 200, payload: { said: 1 } });
    assert.equal((await call(name, 'firmwareUpdate', { fwPackageUri: 'test.com' })).status, 400);
    const answer = await call(name, 'firmwareUpdate', { ...ask, fwVersion: '2.0.0' });
    assert.deepEqual(answer, { status: 200, payload: 'FirmwareUpdate started.' });
    assert.equal((await ended(updater)).outcome, 'completed');
    assert.deepEqual(readFileSync(join(base, 'app.bin')), image);
    // The hub has been told when done() is settled.
    assert.equal((await reported(name)).iothubDM.firmwareUpdate.status, 'applyComplete');
    assert.equal((await call(name, 'late', 1)).status, 201);

    const gone = await serve(t);
    gone.state.status = 404;
    await call(name, 'firmwareUpdate', { ...gone.ask, fwVersion: '3.0.0' });
    assert.equal((await ended(updater)).error.code, 'http-status');
    assert.equal((await reported(name)).iothubDM.firmwareUpdate.status, 'downloadFailed');

    // The hub drops the line: methods are there again, and the twin is read.
    let reads = 0;
    updater.on('readTwin', () => reads++);
    const back = once(client, 'connect');
    await takeOver(name);
    await back;
    await eventually(() => reads > 0, 'a fresh twin');
    await eventually(async () => (await call(name, 'reboot', 3).catch(() => null))?.status === 200, 'the method');
    assert.equal((await call(name, 'getFirmwareUpdateStatus')).status, 200);

    link.detach();
    assert.equal((await call(name, 'firmwareUpdate', ask)).status, 404);
    assert.equal((await call(name, 'reboot', 2)).status, 200);
    const again = await attach(client, updater);
    assert.equal((await call(name, 'getFirmwareUpdateStatus')).status, 200);
    again.detach();
  });
}

test('desired properties over azure-iot-device, and a fresh twin after a reconnect', withSdk, async (t) => {
  const base = directory(t);
  const first = await serve(t);
  const second = await serve(t);
  const client = await clientFor(t, 'desired', transports.Mqtt);
  const updater = updaterIn(t, base, { contract: 'configuration' });
  await attach(client, updater);
  const twin = await new Promise((resolve, reject) => client.getTwin((error, twin) => (error ? reject(error) : resolve(twin))));
  const patches = [];
  twin.on('properties.desired', (patch) => patches.push(patch));
  const desire = (fwVersion, { ask }) => {
    const firmware = { fwVersion, fwPackageURI: ask.fwPackageUri, fwPackageCheckValue: ask.fwPackageCheckValue };
    return registry().updateTwin('desired', { properties: { desired: { firmware } } }, '*');
  };
  await desire('2', first);
  await eventually(() => updater.status().version === '2', 'the request');
  assert.equal((await ended(updater)).outcome, 'completed');
  assert.deepEqual(readFileSync(join(base, 'app.bin')), first.image);
  assert.ok(patches.some((patch) => patch.firmware?.fwVersion === '2'), "the application's own listener");

  let reads = 0;
  updater.on('readTwin', () => reads++);
  const back = once(client, 'connect');
  await takeOver('desired');
  await back;
  // A patch may have been lost with the line.
  await eventually(() => reads > 0, 'a fresh twin');
  await desire('3', second);
  await eventually(() => updater.status().version === '3', 'the request after the reconnect');
  assert.equal((await ended(updater)).outcome, 'completed');
  assert.deepEqual(readFileSync(join(base, 'app.bin')), second.image);
  assert.equal((await reported('desired')).firmware.fwUpdateStatus, 'current');
});

test('what cannot be attached', async (t) => {
  const updater = updaterIn(t, directory(t));
  await assert.rejects(attach({}, updater), TypeError);
  const client = await clientFor(t, 'mqtt', transports.Mqtt);
  await assert.rejects(attach(client, {}), TypeError);
  // Opened first: a client that is closed while it connects for a handler's sake stays connected.
  await client.open();
  await client.getTwin();
  client.onDeviceMethod('firmwareUpdate', () => {});
  await assert.rejects(attach(client, updater), /already been registered/);
  await updater.close();
  await assert.rejects(attach(client, updater), { code: 'state' });
  assert.throws(() => new Device(updater, { connectionString: ready.devices.own }), { code: 'state' });
});

test('an update over our own connection', withSdk, async (t) => {
  const base = directory(t);
  const { image, ask } = await serve(t);
  writeFileSync(join(base, 'app.bin'), 'old');
  const updater = updaterIn(t, base, { connectionString: ready.devices.own, ca: ready.ca });
  const connection = new Device(updater);
  const events = [];
  connection.on('disconnect', (error) => events.push(error.message));
  await once(connection, 'connect');
  assert.equal(connection.updater, updater);
  assert.throws(() => new Device(updater), /has a Device already/);
  assert.equal((await call('own', 'firmwareUpdate', ask)).status, 200);
  assert.equal((await ended(updater)).outcome, 'completed');
  assert.deepEqual(readFileSync(join(base, 'app.bin')), image);
  assert.equal((await reported('own')).iothubDM.firmwareUpdate.status, 'applyComplete');
  assert.deepEqual(events, []);
  await connection.close();
  await assert.rejects(updater.done(), { code: 'state' });
});

test('our own connection by a certificate', withSdk, async (t) => {
  const base = directory(t);
  const file = (end) => join(base, `device.${end}`);
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=certified'];
  execFileSync('openssl', ['req', '-x509', ...kind, '-keyout', file('key'), '-out', file('pem')], { stdio: 'ignore' });
  const thumbprint = new X509Certificate(readFileSync(file('pem'))).fingerprint256.replaceAll(':', '');
  await registry().create({ deviceId: 'certified', authentication: { type: 'selfSigned', x509Thumbprint: { primaryThumbprint: thumbprint } } });
  const connectionString = `HostName=${fields('own').HostName};DeviceId=certified;x509=true`;
  const updater = updaterIn(t, base, { ca: ready.ca });
  assert.throws(() => new Device(updater, { connectionString }), (error) => error instanceof TypeError && /clientCertificate/.test(error.message));
  const options = { connectionString, clientCertificate: file('pem') };
  assert.throws(() => new Device(updater, options), /clientCertificate: the client's key is no private key/);
  const connection = new Device(updater, { ...options, clientKey: file('key') });
  await once(connection, 'connect');
  const { status } = await call('certified', 'getFirmwareUpdateStatus', null);
  assert.equal(status, 200);
  await connection.close();
  await registry().delete('certified');
});

test('a connection that cannot be made says why', async (t) => {
  const updater = updaterIn(t, directory(t));
  assert.throws(() => new Device(updater), (error) => error instanceof TypeError && /connectionString is missing/.test(error.message));
  assert.throws(() => new Device(updater, { connectionString: 7 }), TypeError);
  assert.throws(() => new Device(updater, { connectionString: 'HostName=x' }), { name: 'TypeError', code: 'invalid-config' });
  const { HostName } = fields('own');
  const key = Buffer.alloc(32, 1).toString('base64');
  const connection = new Device(updater, { connectionString: `HostName=${HostName};DeviceId=own;SharedAccessKey=${key}`, ca });
  const [error] = await once(connection, 'disconnect');
  assert.equal(error.code, 'network');
  assert.ok(error.message.length > 10 && !error.message.includes(key), error.message);
  await connection.close();
});
