// The package twinflash-cli: the command, as npm installs it.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { version } from 'twinflash';
import { directory, eventually } from './support.js';

const command = join(import.meta.dirname, 'node_modules/.bin/twinflash-cli');
const run = (program, ...words) => spawnSync(program, words, { encoding: 'utf8', cwd: import.meta.dirname, timeout: 60_000 });

test('npx twinflash-cli demo: a whole update', () => {
  const { status, stdout, stderr } = run('npx', '--offline', '--no', 'twinflash-cli', 'demo', '--json');
  assert.equal(status, 0, stderr);
  const lines = stdout.trim().split('\n').map((line) => JSON.parse(line));
  assert.ok(lines.some((line) => JSON.stringify(line).includes('applyComplete')), stdout);
});

test('the command is of the same version, and its exit status is passed on', () => {
  assert.match(run(command, '--version').stdout, new RegExp(` ${version}\n`));
  const { status, stderr } = run(command, 'nonsense');
  assert.equal(status, 2);
  assert.match(stderr, /nonsense/);
});

test('a signal for it is one for the command', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT']) {
    const base = directory(t);
    const hub = spawn(command, ['hub', '--json', '--mqtt-port', '0', '--https-port', '0', '--state', join(base, 'hub')]);
    t.after(() => hub.kill('SIGKILL'));
    let out = '';
    hub.stdout.on('data', (data) => (out += data));
    await eventually(() => out.includes('\n'), 'the hub');
    hub.kill(signal);
    assert.deepEqual(await once(hub, 'exit'), [0, null], signal);
  }
});

test('the library brings no command, no script, and nothing but its own files', () => {
  const files = (name) => readdirSync(join(import.meta.dirname, 'node_modules', name)).sort();
  const every = ['LICENSE-APACHE', 'LICENSE-MIT', 'README.md'];
  assert.deepEqual(files('twinflash'), [...every, 'index.d.ts', 'index.js', 'index.mjs', 'lib', 'package.json']);
  // Not even to build it, of which npm would warn.
  assert.equal(JSON.parse(readFileSync(join(import.meta.dirname, 'node_modules/twinflash/package.json'))).scripts, undefined);
  assert.deepEqual(files('twinflash-linux-x64-gnu'), [...every, 'package.json', 'twinflash.linux-x64-gnu.node']);
});
