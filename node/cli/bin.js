#!/usr/bin/env node
'use strict';
// Runs the command, which is in the package for this platform, as if it had been started itself.

const { spawn } = require('node:child_process');

/** Linux has two C libraries; npm has installed what is for the one that is here. */
const { platform: system, arch } = process;
const platforms = system === 'linux' ? [`linux-${arch}-gnu`, `linux-${arch}-musl`] : [`${system}-${arch}`];

function find() {
  for (const name of platforms) {
    try {
      return require.resolve(`twinflash-cli-${name}/twinflash`);
    } catch {
      // The next one, or none.
    }
  }
  const [name] = platforms;
  console.error(`twinflash-cli has no command for ${name}: the package twinflash-cli-${name} is not installed (npm leaves it out with --omit=optional)`);
  return process.exit(1);
}

const child = spawn(find(), process.argv.slice(2), { stdio: 'inherit' });
child.once('error', (error) => {
  console.error(`twinflash cannot be started: ${error.message}`);
  process.exit(1);
});
const signals = ['SIGHUP', 'SIGINT', 'SIGTERM'];
for (const signal of signals) {
  process.on(signal, () => {
    // By Ctrl-C the terminal tells both of them; others may tell this one only.
    if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
  });
}
child.once('exit', (code, signal) => {
  if (signal === null) process.exit(code);
  for (const name of signals) process.removeAllListeners(name);
  process.kill(process.pid, signal);
});
