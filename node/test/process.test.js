// Processes and workers: what keeps them alive, and how they end with an update running.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { Worker } from 'node:worker_threads';
import { Updater } from 'twinflash';
import { directory, full, hubFor, options, serve, updaterIn } from './support.js';

const program = join(import.meta.dirname, 'child.js');

/** Runs child.js to its end. */
async function child(what, base, server) {
  const child = spawn(process.execPath, [program, what, base, server?.url, server?.ask.fwPackageCheckValue], { timeout: 60_000 });
  let out = '';
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (out += data));
  const [code, signal] = await once(child, 'close');
  return { code, signal, out };
}

/** What a new updater finds in the state directory. */
async function phaseIn(base) {
  const updater = new Updater(options(base));
  const { phase } = updater.status();
  await updater.close();
  return phase;
}

test('a process with an idle updater ends by itself, though it is not closed', async (t) => {
  const { code, out } = await child('idle', directory(t));
  assert.deepEqual([code, out], [0, '']);
});

test('a process stays for a running update, and then ends by itself', async (t) => {
  const base = directory(t);
  const server = await serve(t);
  const { code, out } = await child('whole', base, server);
  assert.equal(code, 0, out);
  assert.match(out, /completed/);
  assert.deepEqual(readFileSync(join(base, 'app.bin')), server.image);
});

test('process.exit in the middle of an update', async (t) => {
  for (const what of ['exit', 'own']) {
    const base = directory(t);
    const server = await serve(t);
    server.state.hang = 100_000;
    const { code, signal, out } = await child(what, base, server);
    assert.deepEqual([code, signal], [7, null], out);
    assert.match(out, what === 'own' ? /written/ : /progress/);
    assert.equal(await phaseIn(base), 'downloading', what);
  }
});

test('a listener that throws ends the process as any other does', async (t) => {
  const server = await serve(t);
  server.state.hang = 100_000;
  const { code, out } = await child('throw', directory(t), server);
  assert.equal(code, 1);
  assert.match(out, /thrown by a listener/);
});

test('a restart by "exit" ends the process with status 0, and its exit handlers run', async (t) => {
  const base = directory(t);
  const { code, out } = await child('restart', base, await serve(t));
  assert.equal(code, 0, out);
  assert.ok(existsSync(join(base, 'exits')));
  const updater = new Updater(options(base, { install: { file: join(base, 'app.bin'), restart: 'exit' }, policy: { confirm: 'none' } }));
  hubFor(updater);
  assert.equal((await updater.done()).outcome, 'completed');
  await updater.close();
});

test('in a worker: a whole update, and its end', async (t) => {
  const base = directory(t);
  const server = await serve(t);
  const worker = new Worker(program, { workerData: ['whole', base, server.url, server.ask.fwPackageCheckValue] });
  const said = [];
  worker.on('message', (text) => said.push(text));
  const [code] = await once(worker, 'exit');
  assert.equal(code, 0);
  assert.ok(said.includes('completed'), String(said));
  assert.deepEqual(readFileSync(join(base, 'app.bin')), server.image);
});

test('a worker that is terminated gives the state directory back, and the update goes on', async (t) => {
  for (const what of ['whole', 'own']) {
    const base = directory(t);
    writeFileSync(join(base, 'app.bin'), 'old');
    const server = await serve(t);
    server.state.hang = 100_000;
    const worker = new Worker(program, { workerData: [what, base, server.url, server.ask.fwPackageCheckValue] });
    await once(worker, 'message');
    await worker.terminate();
    server.state.hang = undefined;
    const updater = updaterIn(t, base, { install: { file: join(base, 'app.bin') } });
    hubFor(updater);
    assert.equal((await updater.done()).outcome, 'completed');
    assert.deepEqual(readFileSync(join(base, 'app.bin')), server.image);
    await updater.close();
  }
});

test('updaters leave nothing behind', async (t) => {
  // In memory, where there is nothing to wait for.
  const base = directory(t, existsSync('/dev/shm') ? '/dev/shm' : undefined);
  const round = async (count) => {
    for (let n = 0; n < count; n++) {
      const updater = new Updater(options(base));
      hubFor(updater);
      await updater.handleMethod('getFirmwareUpdateStatus');
      await updater.close();
    }
    // Twice: finalizers free what the next collection finds.
    for (let n = 0; n < 2; n++) {
      global.gc();
      await new Promise(setImmediate);
    }
    return process.memoryUsage();
  };
  const [rounds, count] = [6, full ? 1500 : 350];
  // What an allocator keeps for itself it mostly has by then. What is left behind grows in every round.
  const found = [await round(1000)];
  for (let n = 0; n < rounds; n++) found.push(await round(count));
  const grown = (name) => Math.min(...found.slice(1).map((after, n) => (after[name] - found[n][name]) / count));
  t.diagnostic(`${rounds * count} updaters: heap ${grown('heapUsed').toFixed(0)}, RSS ${grown('rss').toFixed(0)} bytes each`);
  assert.ok(grown('heapUsed') < 200, `${grown('heapUsed')} bytes of heap each`);
  assert.ok(grown('rss') < 1000, `${grown('rss')} bytes of memory each`);
});

