// Starts a hub and runs the tests of the unmodified Azure SDKs for Node against it, each file in a process of its own.
//
// TWINFLASH_HUB is the command that starts it (for example "target/debug/twinflash hub --json"). The HTTPS port is 443 where
// that may be used, as the service SDK and MQTT over WebSockets want it; else any, and those tests are left out and say so.

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

const devices = ['d1', 'd2', 'd3', 'd4', 'd5', 'job', 'offline', 'agent'];
const [program, ...words] = process.env.TWINFLASH_HUB.split(' ');
const hub = spawn(
  program,
  [
    ...words,
    ...devices.flatMap((device) => ['--device', device]),
    ...['--mqtt-port', '0', '--https-port', (await mayUse(443)) ? '443' : '0'],
  ],
  { stdio: ['ignore', 'pipe', 'inherit'] },
);
const ended = new Promise((resolve) => hub.once('exit', resolve));
// Read to the end: a full pipe would hold the hub up.
const lines = createInterface(hub.stdout);
const ready = await Promise.race([new Promise((resolve) => lines.once('line', resolve)), ended]);

const files = readdirSync(here).filter((name) => name.endsWith('.test.js'));
const tests = spawn(process.execPath, ['--test', ...files], {
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
