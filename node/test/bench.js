// What the package is measured by: `cargo xtask bench node` calls it with an image's address and SHA-256. Prints a table.
//
// Each figure is that of a process of its own, which calls this program with the word for what is to be measured.

import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createWriteStream, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { get } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const [what, url, sha256, runs] = process.argv.slice(2);
const directory = mkdtempSync('bench-');
process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
const target = join(directory, 'app.bin');

/** The most memory this process has had, in MiB. */
const peak = () => Number(/^VmHWM:\s*(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024;

async function updater() {
  const { Updater } = await import('twinflash');
  const made = new Updater({ stateDir: join(directory, 'state'), install: { file: target }, policy: { allowHttp: true } });
  made.on('report', ({ id }) => setImmediate(() => made.reportDone(id, 204)));
  made.on('readTwin', () => made.handleTwin({ desired: { $version: 1 }, reported: {} }));
  made.connected();
  return made;
}

async function update(made, from = url) {
  const begun = performance.now();
  const { status, payload } = await made.handleMethod('firmwareUpdate', { fwPackageUri: from, fwPackageCheckValue: sha256 });
  if (status !== 200) throw new Error(payload);
  const { success, error } = await made.done();
  if (!success) throw error;
  return performance.now() - begun;
}

/** With Node's own means, in several ways; the table compares with the fastest. */
async function plainly(ask, write) {
  const begun = performance.now();
  const hash = createHash('sha256');
  await write(await ask(), hash);
  const file = await open(target);
  await file.sync();
  await file.close();
  if (hash.digest('hex') !== sha256) throw new Error('another image came');
  return { ms: performance.now() - begun, peak: peak() };
}

const fetched = async () => (await fetch(url)).body;
const got = async () => (await once(get(url), 'response'))[0];

async function loop(body, hash) {
  const file = await open(target, 'w');
  for await (const bytes of body) {
    hash.update(bytes);
    await file.write(bytes);
  }
  await file.close();
}

/** What waits to be written is handed over in one call. */
const sink = () => createWriteStream(target, { highWaterMark: 1 << 20 });

function throughHash(body, hash) {
  const hashed = async function* (source) {
    for await (const bytes of source) {
      hash.update(bytes);
      yield bytes;
    }
  };
  return pipeline(body, hashed, sink());
}

function byEvents(body, hash) {
  body.on('data', (bytes) => hash.update(bytes));
  return pipeline(body, sink());
}

const measures = {
  async idle() {
    await import('twinflash');
    return { peak: peak() };
  },

  async ours() {
    const made = await updater();
    const ms = await update(made);
    await made.close();
    return { ms, peak: peak() };
  },

  'fetch, loop': () => plainly(fetched, loop),
  'fetch, pipeline': () => plainly(async () => Readable.fromWeb(await fetched()), throughHash),
  'http.get, loop': () => plainly(got, loop),
  'http.get, pipeline': () => plainly(got, throughHash),
  'http.get, events': () => plainly(got, byEvents),

  async method() {
    const made = await updater();
    const times = [];
    for (let n = 0; n < 20_000; n++) {
      const begun = performance.now();
      const { status } = await made.handleMethod('firmwareUpdate', { fwPackageUri: 'ftp://example.com/x' });
      if (status !== 400) throw new Error(`it was answered ${status}`);
      times.push((performance.now() - begun) * 1000);
    }
    await made.close();
    return { µs: median(times) };
  },

  require() {
    const begun = performance.now();
    createRequire(import.meta.url)('twinflash');
    return { ms: performance.now() - begun };
  },

  /** How late the event loop is while an update is downloaded here, and while curl downloads the same beside it. */
  async delay() {
    const made = await updater();
    const during = async (work) => {
      const delay = monitorEventLoopDelay({ resolution: 1 });
      delay.enable();
      await work();
      delay.disable();
      return { mean: delay.mean / 1e6, p99: delay.percentile(99) / 1e6, max: delay.max / 1e6 };
    };
    const beside = async () => {
      const curl = spawn('curl', ['-sS', '--fail', '--noproxy', '*', '-o', `${target}.curl`, url], { stdio: 'inherit' });
      const [code] = await once(curl, 'exit');
      if (code !== 0) throw new Error(`curl ended with ${code}`);
    };
    // Of the first of each, the longest delays are those of JavaScript that runs for the first time.
    await update(made, `${url}?first`);
    await beside();
    const found = { ours: await during(() => update(made)), curl: await during(beside) };
    await made.close();
    return found;
  },
};

function median(values) {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

function measure(what) {
  return JSON.parse(execFileSync(process.execPath, [import.meta.filename, what, url, sha256], { stdio: ['ignore', 'pipe', 'inherit'] }));
}

function table() {
  const plain = Object.keys(measures).filter((name) => /^(fetch|http)/.test(name));
  const downloads = Object.fromEntries(['ours', ...plain].map((way) => [way, []]));
  const [idle, requires, delays] = [[], [], []];
  // The first round warms the caches and is not counted.
  for (let run = 0; run <= Number(runs); run++) {
    const found = Object.keys(downloads).map((way) => [way, measure(way)]);
    const [still, required, delay] = ['idle', 'require', 'delay'].map(measure);
    if (run === 0) continue;
    for (const [way, figures] of found) downloads[way].push(figures);
    idle.push(still.peak);
    requires.push(required.ms);
    delays.push(delay);
  }
  const of = (figures, name) => median(figures.map((figure) => figure[name]));
  const base = median(idle);
  const line = (name, text) => console.log(`${name.padEnd(36)}${text}`);
  console.log(`Node ${process.version}; medians of ${runs} runs each, in turn`);
  console.log('a download, verified and synced:');
  for (const [way, figures] of Object.entries(downloads)) {
    const [ms, over] = [of(figures, 'ms'), of(figures, 'peak') - base];
    line(`  ${way === 'ours' ? 'twinflash' : way}`, `${ms.toFixed(0).padStart(6)} ms  ${over.toFixed(1).padStart(6)} MiB over idle (${base.toFixed(0)})`);
  }
  const fastest = Math.min(...plain.map((way) => of(downloads[way], 'ms')));
  line('  as fast as the fastest of the others', `${(fastest / of(downloads.ours, 'ms')).toFixed(2).padStart(6)} times`);
  line('a method that starts nothing', `${measure('method').µs.toFixed(1).padStart(6)} µs`);
  line("require('twinflash')", `${median(requires).toFixed(1).padStart(6)} ms`);
  for (const [name, who] of [['twinflash', 'ours'], ['curl beside it', 'curl']]) {
    const figures = ['mean', 'p99', 'max'].map((figure) => `${figure} ${median(delays.map((delay) => delay[who][figure])).toFixed(2)}`);
    line(`event loop's delay: ${name}`, `   ${figures.join(', ')} ms`);
  }
}

if (what in measures) console.log(JSON.stringify(await measures[what]()));
else table();
