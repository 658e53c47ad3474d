// Installers of the application's own, in JavaScript.

import assert from 'node:assert/strict';
import { open, rename, rm } from 'node:fs/promises';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { Updater } from 'twinflash';
import { directory, ended, eventually, hubFor, options, serve, sha256, updaterIn } from './support.js';

/** A file, by Node's own means. `calls` are the names of what was called; `wrong` what a method does in place of its work. */
class Own {
  #part;
  #file;
  #end = 0;
  calls = [];
  wrong = {};

  constructor(target) {
    this.target = target;
    this.#part = `${target}.part`;
  }

  async #called(name) {
    this.calls.push(name);
    await this.wrong[name]?.();
  }

  inspect() {
    this.calls.push('inspect');
    return 'old';
  }

  async begin(image, resumeAt) {
    this.image = image;
    await this.#called('begin');
    const here = resumeAt > 0 && readFileSync(this.#part).length >= resumeAt;
    this.#file = await open(this.#part, here ? 'r+' : 'w');
    return (this.#end = here ? resumeAt : 0);
  }

  async write(offset, bytes) {
    await this.#called('write');
    assert.ok(Buffer.isBuffer(bytes));
    assert.equal(offset, this.#end);
    await this.#file.write(bytes, 0, bytes.length, offset);
    this.#end += bytes.length;
  }

  async sync() {
    await this.#called('sync');
    await this.#file.sync();
    return this.#end;
  }

  async finish() {
    await this.#called('finish');
    // Called again after a crash, there is no file that begin has opened.
    await this.#file?.close();
  }

  async readBack(size, hash) {
    await this.#called('readBack');
    const image = readFileSync(this.#part);
    if (image.length !== size || sha256(image) !== hash) throw new Error('another image');
  }

  async activate() {
    await this.#called('activate');
    await rename(this.#part, this.target);
  }

  // Not every method need be asynchronous.
  confirm() {
    this.calls.push('confirm');
  }

  async rollback() {
    await this.#called('rollback');
  }

  async abort() {
    await this.#called('abort');
    await this.#file?.close().catch(() => {});
    await rm(this.#part, { force: true });
  }
}

test('an asynchronous installer installs', async (t) => {
  const base = directory(t);
  const { image, ask } = await serve(t, 1_000_000);
  const install = new Own(join(base, 'own.bin'));
  const updater = updaterIn(t, base, { install });
  hubFor(updater);
  await updater.handleMethod('firmwareUpdate', { ...ask, fwVersion: '2' });
  assert.equal((await updater.done()).outcome, 'completed');
  assert.deepEqual(readFileSync(install.target), image);
  assert.deepEqual(install.image, { size: 1_000_000, version: '2' });
  const order = install.calls.filter((name, index, all) => name !== all[index - 1] && name !== 'sync' && name !== 'write');
  assert.deepEqual(order, ['inspect', 'begin', 'finish', 'readBack', 'activate', 'confirm']);
});

test('what an installer throws fails the update: its message, its code, as the cause', async (t) => {
  for (const [step, thrown, code, then] of [
    ['write', Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' }), 'no-space', 'abort'],
    ['finish', new Error('the flash is worn out'), 'install-failed', 'abort'],
    // As of a program that failed: its message has what it printed, of which one line is told.
    ['finish', new Error(`Command failed: tar\n${'tar: no such thing\n'.repeat(50)}`), 'install-failed', 'abort'],
    ['readBack', Object.assign(new Error('two bytes differ'), { code: 'hash-mismatch' }), 'hash-mismatch', 'abort'],
    ['activate', 'no error at all', 'install-failed', 'rollback'],
  ]) {
    const base = directory(t);
    const { ask } = await serve(t);
    const install = new Own(join(base, 'own.bin'));
    install.wrong[step] = () => Promise.reject(thrown);
    const updater = updaterIn(t, base, { install, policy: { applyAttempts: 1 } });
    hubFor(updater);
    await updater.handleMethod('firmwareUpdate', ask);
    const { success, error } = await updater.done();
    assert.equal(success, false);
    assert.equal(error.code, code, step);
    assert.ok(error.message.includes((thrown.message ?? thrown).split('\n')[0]), error.message);
    assert.equal(error.cause, thrown);
    assert.ok(install.calls.includes(then), `${step}: ${install.calls}`);
    await updater.close();
  }
});

test('an answer that cannot be is a failure that says so', async (t) => {
  const base = directory(t);
  const { ask } = await serve(t);
  const install = new Own(join(base, 'own.bin'));
  install.begin = async () => 17;
  const updater = updaterIn(t, base, { install });
  hubFor(updater);
  await updater.handleMethod('firmwareUpdate', ask);
  assert.match((await updater.done()).error.message, /begin answered 17; it must be 0/);
});

test('an inspect that promises is for Updater.open', async (t) => {
  const base = directory(t);
  const { ask } = await serve(t);
  const install = new Own(join(base, 'own.bin'));
  const inspect = install.inspect;
  install.inspect = async () => inspect.call(install);
  assert.throws(() => new Updater(options(base, { install })), /Updater\.open/);
  install.calls.length = 0;
  const updater = await Updater.open(options(base, { install }));
  t.after(() => updater.close());
  hubFor(updater);
  await updater.handleMethod('firmwareUpdate', ask);
  assert.equal((await updater.done()).outcome, 'completed');
  assert.equal(install.calls.filter((name) => name === 'inspect').length, 1);
  install.inspect = async () => Promise.reject(new Error('no such flash'));
  await assert.rejects(Updater.open(options(base, { install })), /no such flash/);
});

test('closed while an installer does not answer, the update is not lost', async (t) => {
  for (const step of ['write', 'finish', 'activate']) {
    const base = directory(t);
    const { image, ask } = await serve(t);
    const first = new Own(join(base, 'own.bin'));
    first.wrong[step] = () => new Promise(() => {});
    const updater = updaterIn(t, base, { install: first });
    hubFor(updater);
    const heard = [];
    updater.on('ended', (outcome) => heard.push(outcome));
    await updater.handleMethod('firmwareUpdate', ask);
    await eventually(() => first.calls.includes(step), step);
    await updater.close();
    assert.deepEqual(heard, []);
    const install = new Own(join(base, 'own.bin'));
    const again = updaterIn(t, base, { install });
    hubFor(again);
    const outcome = await ended(again);
    assert.equal(outcome.outcome, 'completed', `${step}: ${outcome.error}`);
    assert.deepEqual(readFileSync(install.target), image);
    await again.close();
  }
});

test('the event loop turns while an update is written', async (t) => {
  const base = directory(t);
  const { ask } = await serve(t, 20_000_000);
  writeFileSync(join(base, 'app.bin'), 'old');
  const updater = updaterIn(t, base);
  hubFor(updater);
  let turns = 0;
  const turning = setInterval(() => turns++, 1);
  await updater.handleMethod('firmwareUpdate', ask);
  assert.equal((await updater.done()).outcome, 'completed');
  clearInterval(turning);
  assert.ok(turns > 5, `${turns} turns`);
});
