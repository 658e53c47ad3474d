// A program of its own for process.test.js: what it does, in which directory, and against which server.

import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { Updater } from 'twinflash';

const [what, base, url, check] = isMainThread ? process.argv.slice(2) : workerData;
const say = (text) => (isMainThread ? console.log(text) : parentPort.postMessage(text));

const updater = new Updater({
  stateDir: join(base, 'state'),
  currentVersion: '1.0.0',
  install: what === 'own' ? own() : { file: join(base, 'app.bin'), restart: what === 'restart' ? 'exit' : 'none' },
  policy: { allowHttp: true, confirm: 'none' },
});
updater.on('report', ({ id }) => updater.reportDone(id, 204));
updater.on('readTwin', () => updater.handleTwin({ desired: { $version: 1 }, reported: {} }));
updater.connected();

/** One whose `write` never comes to an end. */
function own() {
  const nothing = () => {};
  const write = () => {
    say('written');
    if (isMainThread) setImmediate(() => process.exit(7));
    return new Promise(nothing);
  };
  const steps = Object.fromEntries(['finish', 'activate', 'confirm', 'rollback', 'abort'].map((name) => [name, nothing]));
  return { ...steps, inspect: () => 'old', begin: () => 0, sync: () => 0, write };
}

if (what !== 'idle') {
  updater.on('progress', ({ bytes }) => bytes > 0 && say('progress'));
  updater.on('ended', ({ outcome }) => say(outcome));
  process.on('exit', () => appendFileSync(join(base, 'exits'), 'exit\n'));
  // Not awaited: a running update keeps the process alive.
  updater.handleMethod('firmwareUpdate', { fwPackageUri: url, fwPackageCheckValue: check });
  if (what === 'exit') updater.once('progress', () => process.exit(7));
  if (what === 'throw') updater.once('progress', () => { throw new Error('thrown by a listener'); });
}
