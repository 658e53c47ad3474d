// index.d.ts, by the TypeScript compiler, and against what is there.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import * as twinflash from 'twinflash';

const here = import.meta.dirname;

test('tsc --strict takes what it should, and nothing else', async () => {
  const options = ['--strict', '--noEmit', '--target', 'es2022', '--module', 'commonjs', '--moduleResolution', 'node10', '--types', 'node'];
  const tsc = async (...words) => {
    const compiler = spawn(process.execPath, [join(here, 'node_modules/typescript/bin/tsc'), ...options, ...words], { cwd: here });
    let out = '';
    compiler.stdout.on('data', (data) => (out += data));
    const [status] = await once(compiler, 'close');
    assert.equal(status, 0, out);
  };
  // The SDK's own declarations are not ours to check, nor TypeScript's.
  await Promise.all([tsc('--skipLibCheck', 'types.cts'), tsc('--skipDefaultLibCheck', 'node_modules/twinflash/index.d.ts')]);
});

test('every export and every member is declared, and no other', () => {
  const declared = readFileSync(join(here, 'node_modules/twinflash/index.d.ts'), 'utf8');
  const exported = [...declared.matchAll(/^export (?:const|class|function) (\w+)/gm)].map((match) => match[1]);
  assert.deepEqual(exported.sort(), Object.keys(twinflash).filter((name) => name !== 'default' && name !== 'module.exports').sort());
  for (const name of ['Updater', 'Device']) {
    const body = declared.split(`export class ${name} `)[1].split('\n}\n')[0];
    const members = new Set([...body.matchAll(/^ {2}(?:readonly )?(\w+)[(:]/gm)].map((match) => match[1]));
    for (const inherited of ['constructor', 'on', 'once', 'off', 'addListener', 'removeListener']) members.delete(inherited);
    const there = Object.getOwnPropertyNames(twinflash[name].prototype).filter((member) => member !== 'constructor');
    assert.deepEqual([...members].sort(), there.sort(), name);
  }
});
