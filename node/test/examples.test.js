// Every example of examples/node, as its header says to run it, against a hub and a firmware server over https.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';
import test from 'node:test';
import service from 'azure-iothub';
import { directory, eventually, sha256 } from './support.js';

const ready = JSON.parse(process.env.TWINFLASH_READY);
const only = { skip: ready.httpsPort === 443 ? false : 'port 443 may not be used here, and the SDK knows no other' };
const examples = join(import.meta.dirname, 'examples');
const run = new Set();

/** Serves an image over https, with a certificate that signs itself. */
async function firmwareServer(t, base) {
  const [key, ca] = [join(base, 'key.pem'), join(base, 'ca.pem')];
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-addext', 'basicConstraints=critical,CA:FALSE'];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  execFileSync('openssl', ['req', '-x509', ...kind, ...names, '-keyout', key, '-out', ca], { stdio: 'ignore' });
  const image = randomBytes(500_000);
  const server = createServer({ key: readFileSync(key), cert: readFileSync(ca) }, (request, response) => {
    if (request.url !== '/image.bin') return response.writeHead(404).end();
    return response.writeHead(200, { 'Content-Length': image.length }).end(image);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close() && server.closeAllConnections());
  return { image, ca, url: (name) => `https://localhost:${server.address().port}/${name}` };
}

/** Starts an example; `out()` is what it has printed, `end` its exit status. */
function start(t, name, words, base, environment) {
  run.add(name);
  const child = spawn(process.execPath, [join(examples, name), ...words], { cwd: base, env: { ...process.env, ...environment } });
  let out = '';
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (out += data));
  t.after(() => child.kill('SIGKILL'));
  return { child, out: () => out, end: once(child, 'close').then(([code]) => code) };
}

async function call(device, methodName, payload) {
  const client = service.Client.fromConnectionString(ready.serviceConnectionString);
  return (await client.invokeDeviceMethod(device, { methodName, payload, connectTimeoutInSeconds: 10 })).result;
}

test('device-direct-method.js and service-direct-method.js', only, async (t) => {
  const base = directory(t);
  const { image, ca, url } = await firmwareServer(t, base);
  const device = start(t, 'device-direct-method.js', [ready.devices.example1], base, { FIRMWARE_CA: ca });
  await eventually(() => device.out().includes('Waiting'), 'the device');
  const service = (...words) => start(t, 'service-direct-method.js', ['example1', ...words], base, { TWINFLASH_SERVICE: ready.serviceConnectionString });

  const refused = service('http://example.com/image.bin');
  assert.equal(await refused.end, 1);
  assert.match(refused.out(), /400: Invalid URL format/);
  const missing = service(url('missing.bin'));
  assert.equal(await missing.end, 1, missing.out());
  assert.match(missing.out(), /download image failed: .*404/);
  const right = service(url('image.bin'), sha256(image));
  assert.equal(await right.end, 0, right.out() + device.out());
  assert.match(right.out(), /apply firmware image complete/);
  assert.deepEqual(readFileSync(join(base, 'firmware/app.bin')), image);
  assert.match(device.out(), /phase: downloading[^]*completed/);
  device.child.kill('SIGTERM');
  assert.equal(await device.end, 0, device.out());
});

test('device-iothub-dm.js', only, async (t) => {
  const base = directory(t);
  const { image, ca, url } = await firmwareServer(t, base);
  const device = start(t, 'device-iothub-dm.js', [ready.devices.example2], base, { FIRMWARE_CA: ca });
  await eventually(() => device.out().includes('Waiting'), 'the device');
  assert.equal((await call('example2', 'ihdmFirmwareUpdate', { fwPackageUri: url('image.bin') })).status, 200);
  await eventually(() => device.out().includes('the new firmware is in place'), 'the update');
  assert.deepEqual(readFileSync(join(base, 'firmware/app.bin')), image);
  const { responseBody: twin } = await service.Registry.fromConnectionString(ready.serviceConnectionString).getTwin('example2');
  assert.ok(twin.properties.reported.iothubDM.firmwareUpdate.lastFirmwareUpdate);
  device.child.kill('SIGTERM');
  assert.equal(await device.end, 0, device.out());
});

test('device-no-sdk.mjs', only, async (t) => {
  const base = directory(t);
  const { image, ca, url } = await firmwareServer(t, base);
  const environment = { FIRMWARE_CA: ca, HUB_CA: ready.ca };
  const stopped = start(t, 'device-no-sdk.mjs', [ready.devices.example3], base, environment);
  await eventually(() => stopped.out().includes('connected'), 'the device');
  stopped.child.kill('SIGINT');
  assert.equal(await stopped.end, 0, stopped.out());

  const device = start(t, 'device-no-sdk.mjs', [ready.devices.example3], base, environment);
  await eventually(() => device.out().includes('connected'), 'the device');
  assert.equal((await call('example3', 'firmwareUpdate', { fwPackageUri: url('image.bin') })).status, 200);
  assert.equal(await device.end, 0, device.out());
  assert.match(device.out(), /completed/);
  assert.deepEqual(readFileSync(join(base, 'firmware/app.bin')), image);
});

test('no example is left out', only, () => {
  const all = readdirSync(examples).filter((name) => /\.m?js$/.test(name));
  assert.deepEqual([...run].sort(), all.sort());
});
