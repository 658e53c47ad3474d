// Every program of examples/node, as its header says to run it, against a hub and a firmware server over https: to completion and to a failure.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { call, ready, registry, reported, withSdk } from './hub.js';
import { directory, eventually, sha256 } from './support.js';

const examples = join(import.meta.dirname, 'examples');
const run = new Set(['command-line.js']);

/** Starts an example; `out()` is what it has printed, `end` its exit status. */
function start(t, name, words, base, environment) {
  run.add(name);
  assert.match(readFileSync(join(examples, name), 'utf8'), new RegExp(`^//   node ${name}`, 'm'), 'its header says how');
  const child = spawn(process.execPath, [join(examples, name), ...words], { cwd: base, env: { ...process.env, HUB_CA: ready.ca, ...environment } });
  let out = '';
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (out += data));
  t.after(() => child.kill('SIGKILL'));
  const end = once(child, 'close').then(([code]) => code);
  return { child, out: () => out, end, prints: (text) => eventually(() => out.includes(text) && out, `${name}: ${text} in ${out}`) };
}

const service = (t, name, ...words) => start(t, name, words, '.', { TWINFLASH_SERVICE: ready.serviceConnectionString });

/** A directory, a server of the firmware in it, and a device that runs. */
async function place(t, program, id, waits) {
  const base = directory(t);
  mkdirSync(join(base, 'images'));
  const server = start(t, 'firmware-server.mjs', ['images'], base);
  const [, ca, address] = /FIRMWARE_CA=(.*)\n(.*)\n/.exec(await server.prints('https://'));
  const url = (name, content) => {
    if (content) writeFileSync(join(base, 'images', name), content);
    return address + name;
  };
  const begin = async () => {
    const device = start(t, program, [], base, { TWINFLASH_DEVICE: ready.devices[id], FIRMWARE_CA: ca });
    await device.prints(waits);
    return device;
  };
  return { base, url, begin, installed: () => readFileSync(join(base, 'firmware/app.bin')) };
}

async function stop(device, signal = 'SIGTERM') {
  device.child.kill(signal);
  assert.equal(await device.end, 0, device.out());
}

test('device-direct-method.js and service-direct-method.js', withSdk, async (t) => {
  const { url, begin, installed } = await place(t, 'device-direct-method.js', 'example1', 'Waiting');
  const device = await begin();
  const image = randomBytes(500_000);

  const refused = service(t, 'service-direct-method.js', 'example1', 'http://example.com/image.bin');
  assert.equal(await refused.end, 1);
  assert.match(refused.out(), /400 "Invalid URL format/);
  const missing = service(t, 'service-direct-method.js', 'example1', url('missing.bin'));
  assert.equal(await missing.end, 1, missing.out());
  assert.match(missing.out(), /404 Not Found.*download image failed/);
  const right = service(t, 'service-direct-method.js', 'example1', url('image.bin', image), sha256(image));
  assert.equal(await right.end, 0, right.out() + device.out());
  assert.match(right.out(), /apply firmware image complete/);
  assert.deepEqual(installed(), image);
  assert.match(device.out(), /phase: downloading[^]*completed/);
  assert.equal((await call('example1', 'reboot')).payload, 'Rebooting.');
  const usage = service(t, 'service-direct-method.js', 'example1');
  assert.equal(await usage.end, 2, usage.out());
  await stop(device);
});

test('device-iothub-dm.js and service-iothub-dm.js', withSdk, async (t) => {
  const { url, begin, installed } = await place(t, 'device-iothub-dm.js', 'example2', 'Waiting');
  const device = await begin();
  const images = [randomBytes(500_000), randomBytes(400_000)];

  const forever = service(t, 'service-iothub-dm.js', 'example2', url('one.bin', images[0]));
  await forever.prints('"status":"applyComplete"');
  forever.child.kill('SIGINT');
  await forever.end;
  await device.prints('the new firmware is in place');
  assert.deepEqual(installed(), images[0]);
  const missing = service(t, 'service-iothub-dm.js', 'example2', url('missing.bin'), '--loop');
  assert.equal(await missing.end, 1, missing.out());
  assert.match(missing.out(), /downloadFailed/);
  const wrong = service(t, 'service-iothub-dm.js', 'example2', url('two.bin', images[1]), 'crc32:00000000', '--loop');
  assert.equal(await wrong.end, 1, wrong.out());
  assert.match(wrong.out(), /crc-mismatch/);
  const refused = service(t, 'service-iothub-dm.js', 'example2', 'http://example.com/image.bin', '--loop');
  assert.equal(await refused.end, 1, refused.out());
  assert.match(refused.out(), /refused: 400/);
  assert.deepEqual(installed(), images[0]);
  const right = service(t, 'service-iothub-dm.js', 'example2', url('two.bin'), '--loop');
  assert.equal(await right.end, 0, right.out());
  assert.match(right.out(), /"applyComplete"/);
  assert.deepEqual(installed(), images[1]);
  await stop(device);
});

test('device-configuration.js and service-configuration.js', withSdk, async (t) => {
  const { url, begin, installed } = await place(t, 'device-configuration.js', 'example3', 'Waiting');
  const device = await begin();
  const images = [Buffer.concat([Buffer.from('FW'), randomBytes(300_000)]), randomBytes(200_000)];

  await registry().updateTwin('example3', { tags: { devicetype: 'chiller' }, properties: { desired: { interval: 30 } } }, '*');
  await device.prints('interval: 30');
  const rollOut = service(t, 'service-configuration.js', '1.0.1', url('1.0.1.bin', images[0]), sha256(images[0]));
  await device.prints('completed');
  await rollOut.prints('"current":1');
  assert.match(rollOut.out(), /"targetedCount":1/);
  rollOut.child.kill('SIGINT');
  await rollOut.end;
  assert.deepEqual(installed(), images[0]);
  await registry().removeConfiguration('firmware285');

  const missing = service(t, 'service-configuration.js', '1.0.2', url('missing.bin'), sha256(images[1]), '--device', 'example3');
  assert.equal(await missing.end, 1, missing.out());
  assert.match(missing.out(), /404 Not Found/);
  const unfit = service(t, 'service-configuration.js', '1.0.3', url('1.0.3.bin', images[1]), sha256(images[1]), '--device', 'example3');
  assert.equal(await unfit.end, 1, unfit.out());
  const end = await eventually(async () => {
    const { firmware } = await reported('example3');
    return firmware.fwUpdateStatus === 'rolledback' && firmware;
  }, 'rolled back');
  assert.equal(end.currentFwVersion, '1.0.1');
  assert.deepEqual(installed(), images[0]);
  const right = service(t, 'service-configuration.js', '1.0.4', url('1.0.1.bin'), sha256(images[0]), '--device', 'example3');
  assert.equal(await right.end, 0, right.out());
  await stop(device);
});

test('device-no-sdk.mjs', withSdk, async (t) => {
  const { url, begin, installed } = await place(t, 'device-no-sdk.mjs', 'example4', 'connected');
  await stop(await begin(), 'SIGINT');
  for (const [file, content, outcome] of [['missing.bin', null, /failed: .*404/], ['image.bin', randomBytes(500_000), /completed/]]) {
    const device = await begin();
    assert.equal((await call('example4', 'firmwareUpdate', { fwPackageUri: url(file, content) })).status, 200);
    assert.equal(await device.end, content ? 0 : 1, device.out());
    assert.match(device.out(), outcome);
    if (content) assert.deepEqual(installed(), content);
  }
});

test('own-installer.mjs', withSdk, async (t) => {
  const { base, url, begin } = await place(t, 'own-installer.mjs', 'example5', 'connected');
  const device = await begin();
  const archive = (name, file) => {
    writeFileSync(join(base, file), `console.log('${name}');\n`);
    execFileSync('tar', ['-czf', `images/${name}.tar.gz`, file], { cwd: base });
    return url(`${name}.tar.gz`);
  };
  const current = () => readFileSync(join(base, 'firmware/app/current/app.js'), 'utf8');
  const update = async (address) => {
    const back = service(t, 'service-iothub-dm.js', 'example5', address, '--loop');
    return [await back.end, back.out()];
  };
  for (const [name, links] of [['one', ['current', 'next']], ['two', ['back', 'current', 'next']]]) {
    const [code, out] = await update(archive(name, 'app.js'));
    assert.equal(code, 0, out + device.out());
    assert.match(current(), new RegExp(name));
    // The old one stays until the next update.
    assert.deepEqual(readdirSync(join(base, 'firmware/app')).sort(), [...links, 'releases']);
    assert.equal(readdirSync(join(base, 'firmware/app/releases')).length, name === 'one' ? 1 : 2);
  }
  // No application in it, and no archive.
  for (const address of [archive('three', 'other.js'), url('noise.tar.gz', randomBytes(1000))]) {
    const [code, out] = await update(address);
    assert.equal(code, 1, out);
    assert.match(out, /install-failed|storage/);
    assert.match(current(), /two/);
    assert.equal(readdirSync(join(base, 'firmware/app/releases')).length, 1);
  }
  // The one that runs already, and what is gone with a failure can be had again.
  const before = readlinkSync(join(base, 'firmware/app/current'));
  assert.equal((await update(url('two.tar.gz')))[0], 0);
  assert.equal(readlinkSync(join(base, 'firmware/app/current')), before);
  await stop(device);
});

test('no example is left out', withSdk, () => {
  const all = readdirSync(examples).filter((name) => /\.m?js$/.test(name));
  assert.deepEqual([...run].sort(), all.sort());
});
