// What holds an update up, who agrees to it, and an image from a file of the device.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { TwinflashError } from 'twinflash';
import { directory, eventually, hubFor, serve, sha256, updaterIn } from './support.js';

/** Whether an error is ours, of this code. */
const ours = (code) => (error) => error instanceof TwinflashError && error.code === code;

/** The `waiting` events, as they come. */
function waits(updater) {
  const all = [];
  updater.on('waiting', (waiting) => all.push(waiting));
  return all;
}

test('the user puts an update off, and agrees to it', async (t) => {
  const base = directory(t);
  const { image, requests, ask } = await serve(t);
  const updater = updaterIn(t, base, { policy: { consent: ['download', 'apply'] } });
  const heard = waits(updater);
  hubFor(updater);
  assert.equal(updater.status().waiting, null);
  assert.equal(updater.approve(), false);
  assert.equal(updater.defer(1), false);
  for (const wrong of [undefined, '60', -1, NaN, Infinity]) assert.throws(() => updater.defer(wrong), TypeError);
  assert.equal((await updater.handleMethod('firmwareUpdate', ask)).status, 200);
  await eventually(() => heard.length, 'the event');
  assert.deepEqual(heard, [{ for: 'consent', before: 'download', after: null }]);
  assert.deepEqual(updater.status().waiting, heard[0]);
  assert.deepEqual(requests, []);

  assert.equal(updater.defer(3600), true);
  const { after, ...rest } = updater.status().waiting;
  assert.deepEqual(rest, { for: 'deferral', before: 'download' });
  assert.ok(after > 3500 && after <= 3600, `${after} s`);
  assert.equal(updater.defer(0), true);
  await eventually(() => updater.status().waiting?.for === 'consent', 'the question is put again');
  assert.equal(updater.approve(), true);

  await eventually(() => updater.status().waiting?.before === 'apply', 'the question before it is applied');
  assert.equal(updater.status().bytes, image.length);
  assert.equal(readFileSync(join(base, 'app.bin'), 'utf8'), 'the old image');
  assert.equal(updater.approve(), true);
  assert.equal((await updater.done()).outcome, 'completed');
  assert.deepEqual(readFileSync(join(base, 'app.bin')), image);
  assert.equal(updater.status().waiting, null);
  assert.deepEqual(heard.map((waiting) => [waiting.for, waiting.before].join()), [
    'consent,download', 'deferral,download', 'consent,download', 'consent,apply',
  ]);
});

test('a back end asks, agrees and puts off by methods', async (t) => {
  const { ask } = await serve(t);
  const updater = updaterIn(t, directory(t), { policy: { consent: ['download'] } });
  hubFor(updater);
  for (const method of ['approveFirmwareUpdate', 'deferFirmwareUpdate']) assert.ok(updater.methods.includes(method), method);
  assert.deepEqual(await updater.handleMethod('approveFirmwareUpdate'), { status: 200, payload: { approved: false } });
  await updater.handleMethod('firmwareUpdate', ask);
  assert.deepEqual(await updater.handleMethod('deferFirmwareUpdate', { seconds: 60 }), { status: 200, payload: { deferred: true } });
  const { payload } = await updater.handleMethod('getFirmwareUpdateStatus');
  assert.deepEqual([payload.waiting.for, payload.waiting.before], ['deferral', 'download']);
  assert.equal((await updater.handleMethod('deferFirmwareUpdate', { seconds: 'long' })).status, 400);
  assert.deepEqual(await updater.handleMethod('approveFirmwareUpdate'), { status: 200, payload: { approved: true } });
  assert.equal((await updater.done()).outcome, 'completed');
});

test('who does not agree cancels; a deferral needs no consent, and lasts over a restart', async (t) => {
  const base = directory(t);
  const { requests, ask } = await serve(t);
  const install = { file: join(base, 'app.bin') };
  const first = updaterIn(t, base, { install, policy: { consent: ['download'] } });
  hubFor(first);
  await first.handleMethod('firmwareUpdate', ask);
  assert.equal(first.defer(1000), true);
  await first.close();
  assert.throws(() => first.approve(), ours('state'));
  assert.throws(() => first.defer(1), ours('state'));
  const second = updaterIn(t, base, { install });
  hubFor(second);
  const { for: reason, after } = second.status().waiting;
  assert.equal(reason, 'deferral');
  assert.ok(after > 0 && after <= 1000, `${after} s`);
  assert.equal(second.cancel(), true);
  const outcome = await second.done();
  assert.deepEqual([outcome.outcome, outcome.phase, outcome.error], ['cancelled', 'waiting', null]);
  assert.deepEqual(requests, []);
});

test('a command says whether the device can take it now', async (t) => {
  const base = directory(t);
  const busy = join(base, 'busy');
  writeFileSync(busy, '');
  const { ask } = await serve(t);
  const updater = updaterIn(t, base, { policy: { ready: ['test', '!', '-e', busy], readyInterval: 0.05 } });
  const heard = waits(updater);
  hubFor(updater);
  await updater.handleMethod('firmwareUpdate', ask);
  await eventually(() => updater.status().waiting?.after > 0, 'it is asked again after a while');
  assert.deepEqual([heard[0].for, heard[0].before], ['ready', 'download']);
  assert.equal(updater.status().phase, 'waiting');
  rmSync(busy);
  assert.equal((await updater.done()).outcome, 'completed');
});

test('a dry run: downloaded and verified, nothing written', async (t) => {
  const base = directory(t);
  const { image, requests, ask } = await serve(t);
  const updater = updaterIn(t, base, { policy: { dryRun: true } });
  const reports = hubFor(updater);
  const verified = [];
  updater.on('verified', (what) => verified.push(what));
  await updater.handleMethod('firmwareUpdate', ask);
  const { success, error } = await updater.done();
  assert.equal(success, false);
  assert.ok(ours('dry-run')(error), String(error));
  assert.match(error.message, new RegExp(`would be installed \\(${image.length} bytes, sha256 ${sha256(image)}\\)`));
  assert.equal(requests.length, 1);
  assert.deepEqual(verified.map((what) => what.sha256), [sha256(image)]);
  assert.equal(reports.at(-1).iothubDM.firmwareUpdate.error.code, 'dry-run');
  assert.equal(readFileSync(join(base, 'app.bin'), 'utf8'), 'the old image');
  assert.deepEqual(readdirSync(base).sort(), ['app.bin', 'state']);
});

test('an image from a file of the device', async (t) => {
  const base = directory(t);
  const [image, stick] = [Buffer.alloc(100_000, 'from a stick'), join(base, 'stick.bin')];
  writeFileSync(stick, image);
  const { ask } = await serve(t);
  const updater = updaterIn(t, base, { policy: { consent: ['download', 'apply'] } });
  const reports = hubFor(updater);
  assert.throws(() => updater.installFile(3), TypeError);
  for (const [wrong, named] of [[{ version: 2 }, /version is a number/], [{ chek: '00000000' }, /chek is no option/], [7, /options are a number/]]) {
    assert.throws(() => updater.installFile(stick, wrong), (error) => error instanceof TypeError && named.test(error.message));
  }
  assert.throws(() => updater.installFile(join(base, 'nothing.bin')), (error) => ours('storage')(error) && /nothing\.bin/.test(error.message));
  assert.throws(() => updater.installFile(stick, { check: '123456abcde' }), ours('invalid-check'));
  updater.installFile(stick, { version: '2.0.0', check: sha256(image) });
  assert.equal((await updater.done()).outcome, 'completed');
  assert.deepEqual(readFileSync(join(base, 'app.bin')), image);
  assert.equal(updater.status().runningVersion, '2.0.0');
  assert.equal(reports.at(-1).iothubDM.firmwareUpdate.status, 'applyComplete');

  // Another image than was said is not installed; and nothing is taken while an update runs.
  updater.installFile(stick, { version: '3.0.0', check: 'crc32:00000000' });
  assert.equal((await updater.done()).error.code, 'crc-mismatch');
  assert.equal(updater.status().runningVersion, '2.0.0');
  await updater.handleMethod('firmwareUpdate', ask);
  assert.throws(() => updater.installFile(stick), ours('busy'));
  await updater.close();
  assert.throws(() => updater.installFile(stick), ours('state'));
  assert.ok(existsSync(stick));
});
