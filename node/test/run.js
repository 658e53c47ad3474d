// Starts a hub and runs every test of this directory against it and against the package that is installed beside it.
//
// TWINFLASH_HUB is the command that starts a hub. Its HTTPS port is 443 where that may be used: the service SDK and MQTT over WebSockets
// know no other.

import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';

const here = import.meta.dirname;

function mayUse(port) {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

const devices = [
  'mqtt', 'websockets', 'own', 'desired', 'failing', 'lost', 'absent', 'given-up', 'renewed', 'killed',
  'example1', 'example2', 'example3', 'example4', 'example5',
];
const [program, ...words] = process.env.TWINFLASH_HUB.split(' ');
const ports = ['--mqtt-port', '0', '--https-port', (await mayUse(443)) ? '443' : '0'];
const hub = spawn(program, [...words, ...devices.flatMap((device) => ['--device', device]), ...ports], { stdio: ['ignore', 'pipe', 'inherit'] });
const ended = new Promise((resolve) => hub.once('exit', resolve));
// Read to the end: a full pipe would hold the hub up.
const lines = createInterface(hub.stdout);
const ready = await Promise.race([new Promise((resolve) => lines.once('line', resolve)), ended]);

const given = process.argv.slice(2);
const files = given.length ? given : readdirSync(here).filter((name) => name.endsWith('.test.js'));
// Three files at a time: they mostly wait.
const tests = spawn(process.execPath, ['--expose-gc', '--test', '--test-concurrency=3', ...files], {
  cwd: here,
  stdio: ['ignore', 'inherit', 'inherit'],
  // Node reads NODE_EXTRA_CA_CERTS when it starts, so the hub is there first.
  env: { ...process.env, TWINFLASH_READY: ready, NODE_EXTRA_CA_CERTS: JSON.parse(ready).ca },
});
const code = await new Promise((resolve) => tests.once('exit', resolve));
const alive = hub.exitCode === null;
hub.kill('SIGTERM');
await ended;
if (!alive) console.error('the hub is gone');
process.exitCode = code === 0 && alive ? 0 : 1;
