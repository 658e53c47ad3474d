// What the tests share: images and who serves them, updaters, and a hub for those that need no real one.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { Updater } from 'twinflash';

export const full = process.env.TWINFLASH_FULL === '1';

export function directory(t, where = tmpdir()) {
  const made = mkdtempSync(join(where, 'twinflash-node-'));
  t.after(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

export const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/**
 * Serves an image, with ranges. `state.hang`: so many bytes of it, and then nothing, as long as that is set. `requests` are the
 * `Range` headers that came.
 */
export async function serve(t, size = 300_000) {
  const image = randomBytes(size);
  const state = { hang: undefined, status: undefined };
  const requests = [];
  const server = createServer((request, response) => {
    requests.push(request.headers.range ?? null);
    if (state.status) return response.writeHead(state.status).end();
    const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const head = { 'Content-Length': size - start, 'Accept-Ranges': 'bytes', ETag: '"one"' };
    if (start) head['Content-Range'] = `bytes ${start}-${size - 1}/${size}`;
    response.writeHead(start ? 206 : 200, head);
    if (state.hang === undefined) return response.end(image.subarray(start));
    return response.write(image.subarray(start, state.hang));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close() && server.closeAllConnections());
  const url = `http://127.0.0.1:${server.address().port}/image.bin`;
  return { image, url, state, requests, ask: { fwPackageUri: url, fwPackageCheckValue: sha256(image), fwSize: size } };
}

export function options(base, more) {
  return {
    stateDir: join(base, 'state'),
    contract: 'iothub-dm',
    currentVersion: '1.0.0',
    install: { file: join(base, 'app.bin') },
    ...more,
    policy: { allowHttp: true, retryFirst: 0.05, ...more?.policy },
  };
}

/** An updater of a file `app.bin`, closed when the test ends. */
export function updaterIn(t, base, more) {
  if (!more?.install) writeFileSync(join(base, 'app.bin'), 'the old image');
  const updater = new Updater(options(base, more));
  t.after(() => updater.close());
  return updater;
}

/** A hub for one updater: keeps its twin. Returns the reported properties in the order they came. */
export function hubFor(updater, desired = { $version: 1 }) {
  const reports = [];
  updater.on('report', ({ id, patch }) => {
    reports.push(patch);
    setImmediate(() => updater.reportDone(id, 204));
  });
  updater.on('readTwin', () => updater.handleTwin({ desired, reported: {} }));
  updater.connected();
  return reports;
}

/** The outcome of the update that runs; a failure says where it stood. */
export async function ended(updater, seconds = 60) {
  try {
    return await updater.done({ timeout: seconds });
  } catch (cause) {
    throw new Error(`${cause.message}: ${inspect(updater.status(), { depth: 4 })}`, { cause });
  }
}

/** Waits until condition() gives something, and returns it. */
export async function eventually(condition, what, seconds = 60) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert.ok(Date.now() < end, `not within ${seconds} s: ${what}`);
    await sleep(20);
  }
}
