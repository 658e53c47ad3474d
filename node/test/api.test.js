// The package's interface: what is exported, options, events, promises, errors.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import test from 'node:test';
import * as twinflash from 'twinflash';
import { directory, eventually, hubFor, options, serve, sha256, updaterIn } from './support.js';

const require = createRequire(import.meta.url);
const { Updater, TwinflashError, codes, guard } = twinflash;
const installed = (name) => join(import.meta.dirname, 'node_modules/twinflash', name);
const text = (name) => readFileSync(join(process.env.TWINFLASH_ROOT, name), 'utf8');

test('CommonJS and ESM are the same package', () => {
  const common = require('twinflash');
  for (const name of Object.keys(common)) assert.equal(common[name], twinflash[name], name);
  assert.deepEqual(Object.keys(common).sort(), Object.keys(twinflash).filter((name) => name !== 'default').sort());
  assert.equal(twinflash.version, require('twinflash/package.json').version);
});

test('the codes are those of the one table, also in index.d.ts', () => {
  const table = [...text('core/src/update/failure.rs').matchAll(/^ {4}\w+ = \d+, "([\w-]+)";$/gm)].map((match) => match[1]);
  assert.ok(table.length > 20);
  assert.deepEqual([...codes], table);
  const declared = readFileSync(installed('index.d.ts'), 'utf8').split('export type Code =')[1].split(';\n\n')[0];
  assert.deepEqual([...declared.matchAll(/\| '([\w-]+)'/g)].map((match) => match[1]), table);
});

test('the keys of the configuration are known, so that messages name the option', () => {
  const { KEYS } = require(installed('lib/options.js'));
  const keys = [...text('examples/agent/twinflash.toml').matchAll(/^#?([a-z]+(?:_[a-z]+)+) = /gm)].map((match) => match[1]);
  assert.ok(keys.length > 20);
  assert.deepEqual(keys.filter((key) => !KEYS.has(key)), []);
});

test('index.d.ts has every key of every table, and no other', () => {
  const camel = (key) => key.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
  const declared = readFileSync(installed('index.d.ts'), 'utf8');
  const members = (name) => {
    const body = declared.split(`export interface ${name} {`)[1].split('\n}\n')[0];
    return new Set([...body.matchAll(/^ {2}(\w+)\??:/gm)].map((match) => match[1]));
  };
  const [top, ...tables] = text('examples/agent/twinflash.toml').split(/^\[(?=\w+\]$)/m);
  const keys = (table) => new Set([...table.matchAll(/^#?([a-z_]+) = /gm)].map((match) => camel(match[1])));
  const found = Object.fromEntries(tables.map((table) => [table.split(']')[0], keys(table)]));
  assert.deepEqual(Object.keys(found), ['install', 'trust', 'policy', 'http']);
  // Nobody can offer bytes from here: `source` is refused.
  const known = [...keys(top)].filter((key) => key !== 'source');
  assert.deepEqual(members('UpdaterOptions'), new Set([...known, 'onRestart', ...Object.keys(found)]));
  assert.deepEqual(members('Policy'), found.policy);
  assert.deepEqual(members('Http'), found.http);
  assert.deepEqual(members('Trust'), found.trust);
  const installs = ['FileInstall', 'SlotsInstall', 'CommandInstall'].map(members);
  assert.deepEqual(new Set(installs.flatMap((install) => [...install])), found.install);
});

test('wrong options are TypeErrors that name the option', (t) => {
  const base = directory(t);
  const install = { file: join(base, 'app.bin') };
  const stateDir = join(base, 'state');
  const itself = {};
  itself.itself = itself;
  const own = Object.fromEntries(['inspect', 'begin', 'write', 'sync', 'finish', 'activate', 'confirm', 'rollback'].map((name) => [name, () => {}]));
  for (const [wrong, named] of [
    [undefined, /the options are undefined/],
    [7, /the options are a number/],
    [{ install }, /stateDir is missing/],
    [{ stateDir: '', install }, /stateDir is empty/],
    [{ stateDir }, /install is missing/],
    [{ stateDir: new URL('https://example.com/state?sig=1'), install }, /^stateDir is a URL with https:, /],
    [{ stateDir: Buffer.from('state'), install }, /^stateDir is a Buffer/],
    [{ stateDir, install: [] }, /^install is an array; it must be an object/],
    [{ stateDir, install: {} }, /install must have one of file, slots and command/],
    [{ stateDir, install: { file: 1 } }, /install/],
    [{ stateDir, install: { ...install, installTime: 1 } }, /install\.installTime means nothing/],
    [{ stateDir, install: own }, /install\.abort must be a function/],
    [{ stateDir, install: { ...own, abort() {} } }, /install\.inspect must answer/],
    [{ stateDir, install: { ...own, abort() {}, inspect: async () => 'old' } }, /Updater\.open/],
    [{ stateDir, install: { ...own, abort() {}, inspect: () => 'old', restart: 'sometimes' } }, /install\.restart/],
    [{ stateDir, install, state_dir: 'x' }, /state_dir is no option; it is called stateDir/],
    [{ stateDir, install, policy: { retryTme: 1 } }, /policy\.retryTme: unknown field `retryTme`, .*`retryTime`/],
    [{ stateDir, install, policy: { retryTime: -1 } }, /the option policy\.retryTime: -1 s/],
    [{ stateDir, install, policy: { retryTime: NaN } }, /policy\.retryTime is NaN/],
    [{ stateDir, install, policy: { retryFirst: 9, retryLongest: 1 } }, /policy\.retryFirst is longer than policy\.retryLongest/],
    [{ stateDir, install, contract: 'no-such' }, /no-such/],
    [{ stateDir, install, contract: { contract: 'x', surprise: 1 } }, /surprise/],
    [{ stateDir, install, http: { ca: join(base, 'none.pem') } }, /^http\.ca: .*none\.pem/],
    [{ stateDir, install, ca: join(base, 'none.pem') }, /^ca: .*none\.pem/],
    [{ stateDir, install, http: { proxy: 'x y' } }, /http\.proxy: "x y"/],
    [{ stateDir, install, http: { userAgent: 'a\nb' } }, /http\.userAgent: /],
    [{ stateDir, install, onRestart: 'exit' }, /onRestart must be a function/],
    [{ stateDir, install, source: 'offered' }, /source is no option/],
    [{ stateDir, install, policy: 7 }, /^policy is a number; it must be an object/],
    [{ stateDir, install, policy: null }, /^policy is null; it must be an object/],
    [{ stateDir, install, policy: [] }, /^policy is an array; it must be an object/],
    [{ stateDir, install, policy: new Map([['allowHttp', true]]) }, /^policy is a Map/],
    [{ stateDir, install, policy: itself }, /cannot be written as JSON/],
    [{ stateDir, install, contract: itself }, /cannot be written as JSON/],
    [{ stateDir, install, trust: { threshold: 2n } }, /trust\.threshold is a bigint/],
  ]) {
    assert.throws(() => new Updater(wrong), (error) => {
      assert.ok(error instanceof TypeError, String(error));
      assert.equal(error.code, 'invalid-config');
      assert.match(error.message, named);
      assert.doesNotMatch(error.message, /line \d+ column/);
      return true;
    });
  }
});

test('a contract is a name, a file or an object', async (t) => {
  const base = directory(t);
  const file = join(process.env.TWINFLASH_ROOT, 'core/contracts/node-direct-method.json');
  for (const contract of ['node-direct-method', file, JSON.parse(readFileSync(file, 'utf8'))]) {
    const updater = new Updater(options(base, { contract }));
    const answer = await updater.handleMethod('firmwareUpdate', { fwPackageUri: 'ftp://example.com/x' });
    assert.equal(answer.status, 400);
    await updater.close();
  }
});

test('methods: refused, not ours, those of every contract', async (t) => {
  const updater = updaterIn(t, directory(t));
  const refused = [];
  updater.on('refused', (error) => refused.push(error));
  const answer = await updater.handleMethod('firmwareUpdate', { fwPackageUri: 'test.com' });
  assert.equal(answer.status, 400);
  assert.match(answer.payload, /test\.com/);
  await eventually(() => refused.length, 'the event');
  assert.ok(refused[0] instanceof TwinflashError && refused[0] instanceof Error);
  assert.equal(refused[0].code, 'invalid-uri');
  assert.equal((await updater.handleMethod('firmwareUpdate', Buffer.from('{ no JSON'))).status, 400);
  assert.equal(await updater.handleMethod('reboot', {}), null);
  assert.ok(updater.methods.includes('firmwareUpdate'));
  assert.deepEqual(await updater.handleMethod('cancelFirmwareUpdate'), { status: 200, payload: { cancelled: false } });
  assert.equal((await updater.handleMethod('getFirmwareUpdateStatus')).payload.runningVersion, '1.0.0');
  await assert.rejects(updater.handleMethod(7), TypeError);
  assert.throws(() => updater.reportDone(1, -1), TypeError);
  assert.equal(updater.cancel(), false);
});

test('an update: events, reports, the answer, done', async (t) => {
  const base = directory(t);
  const { image, ask } = await serve(t);
  const updater = updaterIn(t, base);
  const reports = hubFor(updater);
  const events = [];
  const iterating = (async () => {
    for await (const event of updater.events()) events.push(event);
  })();
  const phases = [];
  updater.on('phase', (phase) => phases.push(phase));
  const answer = await updater.handleMethod('firmwareUpdate', { ...ask, fwVersion: '1.0.1' });
  assert.deepEqual(answer, { status: 200, payload: 'FirmwareUpdate started.' });
  assert.ok(reports.some((patch) => patch.iothubDM?.firmwareUpdate?.fwPackageUri === ask.fwPackageUri), 'the hub has the first report');
  const outcome = await updater.done();
  assert.deepEqual(outcome, { outcome: 'completed', success: true, phase: null, error: null });
  assert.equal(reports.at(-1).iothubDM.firmwareUpdate.status, 'applyComplete');
  assert.deepEqual(readFileSync(join(base, 'app.bin')), image);
  assert.equal(updater.status().phase, null);
  assert.deepEqual(await updater.done({ timeout: 0.5 }), outcome);
  await updater.close();
  await iterating;
  const types = events.map((event) => event.type);
  for (const type of ['accepted', 'phase', 'progress', 'verified', 'ended', 'report', 'readTwin']) assert.ok(types.includes(type), type);
  assert.deepEqual(events.find((event) => event.type === 'verified').value, { by: 'checks', bytes: image.length, sha256: sha256(image) });
  assert.equal(events.find((event) => event.type === 'accepted').value.version, '1.0.1');
  assert.deepEqual(phases.filter((phase) => ['downloading', 'applying'].includes(phase)), ['downloading', 'applying']);
  assert.deepEqual(events.filter((event) => event.type === 'phase').map((event) => event.value), phases);
});

test('desired properties start an update, and a failure has its code', async (t) => {
  const { state, ask } = await serve(t);
  state.status = 404;
  const updater = updaterIn(t, directory(t), { contract: 'configuration' });
  const desired = { firmware: { fwVersion: '1.0.1', fwPackageURI: ask.fwPackageUri, fwPackageCheckValue: ask.fwPackageCheckValue }, $version: 2 };
  hubFor(updater, desired);
  const outcome = await updater.done();
  assert.deepEqual([outcome.outcome, outcome.success, outcome.phase], ['failed', false, 'downloading']);
  assert.ok(outcome.error instanceof TwinflashError);
  assert.equal(outcome.error.code, 'http-status');
  assert.match(outcome.error.message, /404/);
});

test('done: aborted, out of time, closed; and the update goes on', async (t) => {
  const { state, ask } = await serve(t);
  state.hang = 100_000;
  const updater = updaterIn(t, directory(t));
  hubFor(updater);
  await updater.handleMethod('firmwareUpdate', ask);
  const controller = new AbortController();
  const waiting = updater.done({ signal: controller.signal });
  controller.abort('enough');
  await assert.rejects(waiting, { name: 'AbortError', code: 'ABORT_ERR', cause: 'enough' });
  await assert.rejects(updater.done({ signal: controller.signal }), { name: 'AbortError' });
  await assert.rejects(updater.done({ timeout: 0.05 }), { name: 'TimeoutError', message: /0\.05 s/ });
  await assert.rejects(updater.done({ timeout: -1 }), TypeError);
  await assert.rejects(updater.done({ signal: controller }), { name: 'TypeError', message: /AbortSignal/ });
  assert.equal(updater.status().phase, 'downloading');
  const closing = assert.rejects(updater.done(), { code: 'state' });
  await updater.close();
  await closing;
  await assert.rejects(updater.done(), { code: 'state' });
  assert.throws(() => updater.cancel(), (error) => error instanceof TwinflashError && error.code === 'state');
  // All of it may be called, and does nothing.
  updater.pause();
  updater.resume();
  updater.confirm();
  updater.connected(false);
  assert.equal((await updater.handleMethod('firmwareUpdate', ask)).status, 503);
  await updater.close();
});

test('done: where nothing can be saved, the outcome all the same when its time is over', async (t) => {
  const base = directory(t);
  const { ask } = await serve(t);
  const updater = updaterIn(t, base);
  hubFor(updater);
  for (const copy of ['journal.a', 'journal.b']) {
    rmSync(join(base, 'state', copy), { force: true });
    mkdirSync(join(base, 'state', copy));
  }
  assert.equal((await updater.handleMethod('firmwareUpdate', ask)).status, 500);
  assert.equal((await updater.done({ timeout: 0.2 })).error.code, 'state');
  await assert.rejects(updater.flush({ timeout: 0.2 }), { code: 'state' });
});

test('the guard counts starts, and brings the old image back', async (t) => {
  const base = directory(t);
  const { ask } = await serve(t);
  const install = { file: join(base, 'app.bin'), restart: 'exit' };
  writeFileSync(install.file, 'the old image');
  assert.throws(() => guard(), TypeError);
  assert.throws(() => guard(''), TypeError);
  assert.deepEqual(guard(join(base, 'state')), { kind: 'nothing', starts: 0, allowed: 0 });
  const updater = updaterIn(t, base, { install, policy: { confirm: 'call', confirmAttempts: 1 }, onRestart: () => {} });
  hubFor(updater);
  await updater.handleMethod('firmwareUpdate', ask);
  await eventually(() => updater.status().phase === 'rebooting', 'the restart');
  assert.throws(() => guard(join(base, 'state')), (error) => error instanceof TwinflashError && error.code === 'locked');
  await updater.close();
  assert.deepEqual(guard(join(base, 'state')), { kind: 'counted', starts: 1, allowed: 1 });
  assert.equal(guard(join(base, 'state')).kind, 'rolled-back');
  assert.equal(readFileSync(install.file, 'utf8'), 'the old image');
});

test('pause, resume, cancel', async (t) => {
  const { state, ask } = await serve(t);
  state.hang = 100_000;
  const updater = updaterIn(t, directory(t));
  hubFor(updater);
  await updater.handleMethod('firmwareUpdate', ask);
  updater.pause();
  await updater.flush();
  assert.equal(updater.status().paused, true);
  await assert.rejects(updater.flush({ timeout: 'long' }), TypeError);
  updater.resume();
  assert.equal(updater.status().paused, false);
  assert.equal(updater.cancel(), true);
  assert.deepEqual((await updater.done()).outcome, 'cancelled');
  assert.equal(updater.cancel(), false);
  await updater.close();
  await assert.rejects(updater.flush(), { code: 'state' });
});

test('closed in the middle, an update goes on at the next start', async (t) => {
  const base = directory(t);
  const { image, state, requests, ask } = await serve(t, 3_000_000);
  state.hang = 2_000_000;
  const first = updaterIn(t, base, { policy: { checkpointBytes: 500_000 } });
  hubFor(first);
  await first.handleMethod('firmwareUpdate', ask);
  await eventually(() => first.status().bytes >= 2_000_000, 'two megabytes');
  assert.throws(() => new Updater(options(base)), (error) => error instanceof TwinflashError && error.code === 'locked');
  await first[Symbol.asyncDispose]();
  state.hang = undefined;
  const second = updaterIn(t, base, { install: { file: join(base, 'app.bin') } });
  hubFor(second);
  assert.equal((await second.done()).outcome, 'completed');
  assert.deepEqual(readFileSync(join(base, 'app.bin')), image);
  assert.match(requests[1], /^bytes=[1-9]\d+-$/);
});

test('a new version is confirmed by the application, after a restart of its own', async (t) => {
  const base = directory(t);
  const { ask } = await serve(t);
  const restarts = [];
  const install = { file: join(base, 'app.bin'), restart: 'exit' };
  const first = updaterIn(t, base, { install, policy: { confirm: 'call' }, onRestart: async (restart) => void restarts.push(restart) });
  hubFor(first);
  await first.handleMethod('firmwareUpdate', ask);
  await eventually(() => restarts.length, 'the restart');
  assert.deepEqual(restarts, [{ kind: 'exit', command: null }]);
  await first.close();
  const second = updaterIn(t, base, { install, policy: { confirm: 'call' } });
  hubFor(second);
  assert.equal(second.status().phase, 'confirming');
  second.confirm();
  assert.equal((await second.done()).outcome, 'completed');
});
