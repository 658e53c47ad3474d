// What a device does with azure-iot-device and azure-iot-device-mqtt.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { promisify } from 'node:util';
import common from 'azure-iot-common';
import device from 'azure-iot-device';
import transports from 'azure-iot-device-mqtt';
import { call, connect, eventually, fields, leftOut, opened, ready, registry, takeOver } from './hub.js';

const { Mqtt, MqttWs } = transports;
const { errors } = common;

/** Answers a direct method with what it was called with. */
function echo(client, name) {
  client.onDeviceMethod(name, (request, response) => response.send(200, { said: request.payload }, () => {}));
}

/** Waits until a method can be called: onDeviceMethod does not say when it has subscribed. */
async function called(name, method, payload) {
  return call(name, method, payload, { connectTimeoutInSeconds: 10 });
}

test('telemetry is taken', async (t) => {
  const client = await connect(t, 'd1', Mqtt);
  await client.sendEvent(new device.Message('hello'));
});

test('the twin: GET, reported, desired', { skip: leftOut }, async (t) => {
  const client = await connect(t, 'd2', Mqtt);
  const twin = await client.getTwin();
  const report = promisify(twin.properties.reported.update).bind(twin.properties.reported);
  await report({ firmware: { status: 'current', n: 1 } });
  await report({ firmware: { n: null } });
  const seen = (await registry().getTwin('d2')).responseBody;
  assert.deepEqual(seen.properties.reported.firmware, { status: 'current' });
  assert.equal(seen.connectionState, 'Connected');

  const patches = [];
  twin.on('properties.desired', (patch) => patches.push(patch));
  // The first call is the whole section, as it is.
  await eventually(() => patches.length === 1, 'the desired properties as they are');
  assert.equal(patches[0].$version, 1);
  // The SDK does not say when it has subscribed.
  let n = 0;
  await eventually(async () => {
    await registry().updateTwin('d2', { properties: { desired: { n: ++n } } }, '*');
    return eventually(() => patches.length > 1, 'a desired patch', 2).catch(() => false);
  }, 'a desired patch');
  patches.length = 0;
  await registry().updateTwin('d2', { properties: { desired: { a: 1, b: { c: 2 } } } }, '*');
  await registry().updateTwin('d2', { properties: { desired: { b: null } } }, '*');
  await eventually(() => patches.length === 2, 'two desired patches');
  const version = patches[0].$version;
  assert.deepEqual(patches, [{ a: 1, b: { c: 2 }, $version: version }, { b: null, $version: version + 1 }]);
  const again = await client.getTwin();
  assert.deepEqual([again.properties.desired.a, again.properties.desired.b], [1, undefined]);
});

test('a bad report is refused, and the device lives on', async (t) => {
  const client = await connect(t, 'd3', Mqtt);
  const twin = await client.getTwin();
  const report = promisify(twin.properties.reported.update).bind(twin.properties.reported);
  const large = Object.fromEntries(Array.from({ length: 9 }, (_, n) => [`k${n}`, 'x'.repeat(4000)]));
  await assert.rejects(report(large), /'Properties\.Reported' size should be less than 32768 bytes/);
  await assert.rejects(report({ 'bad key': 1 }), Error);
  await report({ good: 1 });
});

test('methods go both ways', { skip: leftOut }, async (t) => {
  const client = await connect(t, 'd3', Mqtt);
  echo(client, 'firmwareUpdate');
  client.onDeviceMethod('refused', (request, response) => response.send(400, 'no', () => {}));
  client.onDeviceMethod('silent', (request, response) => response.send(200, () => {}));
  await called('d3', 'firmwareUpdate', 'first');
  for (const payload of [{ fwPackageUri: 'https://x/y' }, 'text', [1, 2.5, null], '', 'x'.repeat(100_000)]) {
    assert.deepEqual(await call('d3', 'firmwareUpdate', payload), { status: 200, payload: { said: payload } });
  }
  assert.deepEqual(await call('d3', 'firmwareUpdate', null), { status: 200, payload: { said: null } });
  assert.deepEqual(await call('d3', 'refused', 1), { status: 400, payload: 'no' });
  assert.deepEqual(await call('d3', 'silent', 1), { status: 200, payload: null });
  // What nobody has taken on, the SDK leaves without an answer. (It gives up itself after the sum of both times.)
  const late = call('d3', 'unheardOf', 1, { responseTimeoutInSeconds: 5, connectTimeoutInSeconds: 20 });
  await assert.rejects(late, (error) => error.name === 'GatewayTimeoutError' && error.responseBody.includes('504101'));
});

/** A device's connection string as each transport has to have it: over WebSockets the SDK knows no port but 443. */
const transported = [
  ['MQTT', Mqtt, (name) => ready.devices[name]],
  ['WebSockets', MqttWs, (name) => ready.devices[name].replace(/^HostName=[^;]*/, 'HostName=localhost')],
];

for (const [over, transport, connection] of transported) {
  test(`a dropped connection over ${over} comes back, and its methods too`, { skip: leftOut }, async (t) => {
    const client = await opened(t, device.Client.fromConnectionString(connection('d4'), transport));
    echo(client, 'm');
    await called('d4', 'm', 1);
    const again = once(client, 'connect');
    await takeOver('d4');
    await again;
    assert.deepEqual(await called('d4', 'm', 2), { status: 200, payload: { said: 2 } });
  });

  test(`a renewed token over ${over} keeps methods`, { skip: leftOut }, async (t) => {
    // Valid for 6 s, renewed 4 s before that: the hub would close the connection in this test's time.
    const provider = device.SharedAccessKeyAuthenticationProvider.fromConnectionString(connection('d5'), 6, 4);
    const tokens = [];
    provider.on('newTokenAvailable', (credentials) => tokens.push(credentials.sharedAccessSignature));
    const client = await opened(t, device.Client.fromAuthenticationProvider(provider, transport));
    echo(client, 'm');
    await called('d5', 'm', 1);
    const count = tokens.length;
    await eventually(() => tokens.length >= count + 4, 'four renewals: longer than one token lives', 20);
    assert.deepEqual(await called('d5', 'm', 2), { status: 200, payload: { said: 2 } });
  });
}

test('MQTT over WebSockets', { skip: leftOut }, async (t) => {
  const [, transport, connection] = transported[1];
  const client = await opened(t, device.Client.fromConnectionString(connection('d1'), transport));
  echo(client, 'm');
  assert.deepEqual((await called('d1', 'm', 'x'.repeat(100_000))).payload, { said: 'x'.repeat(100_000) });
  const twin = await client.getTwin();
  await promisify(twin.properties.reported.update).call(twin.properties.reported, { over: 'websockets' });
  assert.equal((await client.getTwin()).properties.reported.over, 'websockets');
});

test('a wrong key, an unknown device: UnauthorizedError', async () => {
  const { HostName, SharedAccessKey } = fields('d1');
  const wrong = Buffer.alloc(32, 1).toString('base64');
  for (const string of [
    `HostName=${HostName};DeviceId=d1;SharedAccessKey=${wrong}`,
    `HostName=${HostName};DeviceId=nobody;SharedAccessKey=${SharedAccessKey}`,
  ]) {
    const client = device.Client.fromConnectionString(string, Mqtt);
    await assert.rejects(client.open(), errors.UnauthorizedError);
  }
});

test('a certificate lets a device in by its thumbprint', { skip: leftOut }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'twinflash-node-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const certificate = (name) => {
    const file = (end) => join(directory, `${name}.${end}`);
    const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=node-certified'];
    execFileSync('openssl', ['req', '-x509', ...kind, '-keyout', file('key'), '-out', file('pem')], { stdio: 'ignore' });
    const cert = readFileSync(file('pem'), 'utf8');
    return { cert, key: readFileSync(file('key'), 'utf8'), thumbprint: new X509Certificate(cert).fingerprint256.replaceAll(':', '') };
  };
  const [own, other] = ['own', 'other'].map(certificate);
  const deviceId = 'node-certified';
  const authentication = { type: 'selfSigned', x509Thumbprint: { primaryThumbprint: own.thumbprint } };
  await registry().create({ deviceId, authentication });
  for (const [host, transport] of [[fields('d1').HostName, Mqtt], ['localhost', MqttWs]]) {
    const client = () => device.Client.fromConnectionString(`HostName=${host};DeviceId=${deviceId};x509=true`, transport);
    const admitted = await opened(t, client(), { cert: own.cert, key: own.key });
    echo(admitted, 'm');
    assert.deepEqual(await called(deviceId, 'm', 1), { status: 200, payload: { said: 1 } });
    await admitted.close();
    await assert.rejects(opened(t, client(), { cert: other.cert, key: other.key }), errors.UnauthorizedError);
  }
  await registry().delete(deviceId);
});

test('a device that is disabled is disconnected', { skip: leftOut }, async (t) => {
  const name = 'node-disabled';
  const made = (await registry().create({ deviceId: name })).responseBody;
  const key = made.authentication.symmetricKey.primaryKey;
  const string = `HostName=${fields('d1').HostName};DeviceId=${name};SharedAccessKey=${key}`;
  const client = await opened(t, device.Client.fromConnectionString(string, Mqtt));
  client.setRetryPolicy(new common.NoRetry());
  const gone = once(client, 'disconnect');
  await registry().update({ deviceId: name, status: 'disabled' });
  await gone;
  await assert.rejects(device.Client.fromConnectionString(string, Mqtt).open(), errors.UnauthorizedError);
  await registry().delete(name);
});
