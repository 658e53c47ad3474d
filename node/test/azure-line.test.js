// An unmodified client of azure-iot-device under an updater, when things go wrong: the update, the line, the token, the process. All at once:
// they mostly wait.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import common from 'azure-iot-common';
import device from 'azure-iot-device';
import transports from 'azure-iot-device-mqtt';
import { attach } from 'twinflash';
import { ca, call, fields, ready, registry, reported, withSdk } from './hub.js';
import { directory, ended, eventually, serve, updaterIn } from './support.js';

const { NoRetry } = common;

async function clientFor(t, name, host, tokenRenewal) {
  const { HostName, SharedAccessKey } = fields(name);
  const string = `HostName=${host ?? HostName};DeviceId=${name};SharedAccessKey=${SharedAccessKey}`;
  const client = device.Client.fromConnectionString(string, transports.Mqtt);
  t.after(() => client.close().catch(() => {}));
  await client.setOptions({ ca, tokenRenewal });
  return client;
}

/** Passes everything on to the hub; `deaf` nothing that comes from it, `dead` nobody new. */
async function lineToTheHub(t) {
  const [host, port = 8883] = fields('lost').HostName.split(':');
  const line = { deaf: false, dead: false, sockets: new Set(), cut: () => line.sockets.forEach((socket) => socket.destroy()) };
  const server = createServer((socket) => {
    if (line.dead) return socket.destroy();
    const hub = connect(port, host);
    for (const [from, to] of [[socket, hub], [hub, socket]]) {
      line.sockets.add(from);
      from.on('data', (data) => (from === hub && line.deaf) || to.write(data));
      from.on('error', () => {});
      from.on('close', () => line.sockets.delete(from) && to.destroy());
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close() && line.cut());
  return Object.assign(line, { host: `${host}:${server.address().port}` });
}

/** Ends the silence of an image's server. */
async function goOn(updater, state) {
  state.hang = undefined;
  updater.pause();
  await updater.flush();
  updater.resume();
}

describe('azure-iot-device, and what goes wrong', { concurrency: true, ...withSdk }, () => {
  test('each failure is in the twin, and the next update starts', async (t) => {
    const base = directory(t);
    const { image, url, state, ask } = await serve(t);
    const unfit = join(base, 'unfit');
    const policy = { confirm: ['test', '!', '-e', unfit], confirmAttempts: 1, confirmTime: 6, maxSize: 1_000_000 };
    const updater = updaterIn(t, base, { policy });
    await attach(await clientFor(t, 'failing'), updater);
    const update = async (more) => (await call('failing', 'firmwareUpdate', { ...ask, ...more })).status;
    const ends = async (status, code) => {
      const { success, error } = await ended(updater);
      assert.equal(error?.code, code);
      assert.equal(success, !code);
      const { firmwareUpdate } = (await reported('failing')).iothubDM;
      assert.deepEqual([firmwareUpdate.status, firmwareUpdate.error?.code], [status, code]);
    };
    for (const [more, code] of [
      [{ fwPackageCheckValue: '00000000' }, 'crc-mismatch'],
      [{ fwPackageCheckValue: '0'.repeat(64) }, 'hash-mismatch'],
      [{ fwSize: 299_999 }, 'size-mismatch'],
      [{ fwPackageUri: `${url}?other`, fwSize: undefined }, 'http-status'],
    ]) {
      state.status = code === 'http-status' ? 410 : undefined;
      assert.equal(await update(more), 200);
      await ends('downloadFailed', code);
    }
    state.status = undefined;
    for (const more of [{ fwPackageCheckValue: '123456abcde' }, { fwPackageUri: 'ftp://localhost/x' }, { fwSize: -1 }]) {
      assert.equal(await update(more), 400);
    }
    writeFileSync(unfit, '');
    assert.equal(await update(), 200);
    await ends('applyFailed', 'not-confirmed');
    assert.equal(readFileSync(join(base, 'app.bin'), 'utf8'), 'the old image');
    rmSync(unfit);
    state.hang = 100_000;
    assert.equal(await update(), 200);
    await eventually(() => updater.status().bytes > 0, 'bytes');
    assert.deepEqual((await call('failing', 'cancelFirmwareUpdate')).payload, { cancelled: true });
    assert.equal((await ended(updater)).outcome, 'cancelled');
    assert.equal((await reported('failing')).iothubDM.firmwareUpdate.error.code, 'cancelled');
    state.hang = undefined;
    assert.equal(await update(), 200);
    await ends('applyComplete', undefined);
    assert.deepEqual(readFileSync(join(base, 'app.bin')), image);
  });

  test('an answer of the hub that is lost with its line is not waited for', async (t) => {
    const base = directory(t);
    const { image, url, state, ask } = await serve(t);
    state.hang = 100_000;
    const line = await lineToTheHub(t);
    const client = await clientFor(t, 'lost', line.host);
    client.onDeviceMethod('reboot', (request, response) => response.send(200, null, () => {}));
    const updater = updaterIn(t, base);
    // Nor at the first: that of the twin is lost, and read again over the next line.
    await client.getTwin();
    line.deaf = true;
    const early = updaterIn(t, directory(t));
    const refused = assert.rejects(attach(client, early), { code: 'state' });
    await early.close();
    await refused;
    const attaching = attach(client, updater);
    await sleep(200);
    line.cut();
    line.deaf = false;
    await attaching;
    let reads = 0;
    updater.on('readTwin', () => reads++);
    await eventually(() => updater.status().phase === null && reads, 'the first twin');
    // The hub takes the update's first report, and its answer never comes.
    const first = ({ patch }) => {
      if (patch.iothubDM?.firmwareUpdate?.fwPackageUri !== url) return;
      updater.off('report', first);
      line.deaf = true;
    };
    updater.on('report', first);
    call('lost', 'firmwareUpdate', ask, 5).catch(() => {});
    await eventually(() => line.deaf, 'a report');
    // Where it does not get that far in this time, all the same must come of it.
    await sleep(200);
    const [back, before] = [once(client, 'connect'), reads];
    line.cut();
    line.deaf = false;
    await back;
    await eventually(() => reads > before, 'the twin is read again');
    await goOn(updater, state);
    assert.equal((await ended(updater)).outcome, 'completed');
    assert.deepEqual(readFileSync(join(base, 'app.bin')), image);
    assert.equal((await reported('lost')).iothubDM.firmwareUpdate.status, 'applyComplete');
    assert.equal((await call('lost', 'reboot')).status, 200);
    assert.equal((await call('lost', 'getFirmwareUpdateStatus')).status, 200);
  });

  test('a hub that is not there is an error of attach, a line that breaks under it is none', async (t) => {
    const line = await lineToTheHub(t);
    line.dead = true;
    const client = await clientFor(t, 'absent', line.host);
    const updater = updaterIn(t, directory(t));
    await assert.rejects(attach(client, updater), { name: 'UnauthorizedError' });
    line.dead = false;
    await client.open();
    // The line breaks under its first SUBSCRIBE.
    line.deaf = true;
    const attaching = attach(client, updater);
    await sleep(200);
    line.cut();
    line.deaf = false;
    await attaching;
    assert.equal((await call('absent', 'getFirmwareUpdateStatus')).status, 200);
  });

  test('where the SDK gives up, the updater goes on as soon as the application opens the client again', async (t) => {
    const base = directory(t);
    const { image, ask } = await serve(t);
    const line = await lineToTheHub(t);
    const client = await clientFor(t, 'given-up', line.host);
    client.setRetryPolicy(new NoRetry());
    await client.open();
    const lose = async () => {
      const gone = once(client, 'disconnect');
      line.dead = true;
      line.cut();
      await gone;
    };
    // At the worst moment: between the twin's first read and its listener, whose error nobody else hears.
    const { getTwin } = client;
    const failed = new Promise((resolve) => {
      client.getTwin = async (done) => {
        client.getTwin = getTwin;
        const twin = await client.getTwin();
        const { emit } = twin;
        twin.emit = (name, ...what) => (name === 'error' && resolve(), emit.call(twin, name, ...what));
        await lose();
        done(null, twin);
      };
    });
    const updater = updaterIn(t, base, { contract: 'configuration' });
    const reads = [];
    updater.on('readTwin', () => reads.push(line.dead));
    await attach(client, updater);
    await failed;
    for (let n = 1; n <= 2; n++) {
      line.dead = false;
      await client.open();
      await eventually(() => reads.filter((dead) => !dead).length >= n, 'the twin is read');
      const firmware = { fwVersion: `1.0.${n}`, fwPackageURI: ask.fwPackageUri, fwPackageCheckValue: ask.fwPackageCheckValue };
      await registry().updateTwin('given-up', { properties: { desired: { firmware } } }, '*');
      await eventually(() => updater.status().version === `1.0.${n}`, 'the patch');
      assert.ok((await ended(updater)).success);
      if (n === 1) await lose();
    }
    assert.deepEqual(readFileSync(join(base, 'app.bin')), image);
  });

  test('tokens of seven seconds, renewed after two: the update goes on, the twin is read again, and no status flips', async (t) => {
    const base = directory(t);
    const { image, state, ask } = await serve(t);
    state.hang = 100_000;
    const client = await clientFor(t, 'renewed', undefined, { tokenValidTimeInSeconds: 7, tokenRenewalMarginInSeconds: 5 });
    const updater = updaterIn(t, base);
    const statuses = [];
    updater.on('report', ({ patch }) => statuses.push(patch.iothubDM?.firmwareUpdate?.status));
    let reads = 0;
    updater.on('readTwin', () => reads++);
    await attach(client, updater);
    assert.equal((await call('renewed', 'firmwareUpdate', ask)).status, 200);
    await eventually(() => reads >= 4, 'three renewals');
    // An answer may be lost with the line whose token is being renewed.
    const asked = () => call('renewed', 'getFirmwareUpdateStatus', undefined, 5).catch(() => undefined);
    assert.equal((await eventually(asked, 'an answer')).payload.phase, 'downloading');
    await goOn(updater, state);
    assert.equal((await ended(updater)).outcome, 'completed');
    assert.deepEqual(readFileSync(join(base, 'app.bin')), image);
    assert.equal((await reported('renewed')).iothubDM.firmwareUpdate.status, 'applyComplete');
    // One that was lost with its line comes twice, in a row.
    const course = statuses.filter((status) => status).filter((status, index, all) => status !== all[index - 1]);
    assert.deepEqual(course, [...new Set(course)]);
  });

  test('SIGKILL in the middle: the next start goes on from the checkpoint', async (t) => {
    const base = directory(t);
    writeFileSync(join(base, 'app.bin'), 'old');
    const { image, state, requests, ask } = await serve(t, 3_000_000);
    state.hang = 2_000_000;
    const start = () => {
      const child = spawn(process.execPath, [join(import.meta.dirname, 'azure-child.js'), base, ready.devices.killed], { timeout: 60_000 });
      let out = '';
      for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (out += data));
      t.after(() => child.kill('SIGKILL'));
      return { child, prints: (text) => eventually(() => out.includes(text), `${text} in ${out}`) };
    };
    const first = start();
    await first.prints('attached');
    assert.equal((await call('killed', 'firmwareUpdate', ask)).status, 200);
    await first.prints('2000000 bytes');
    // A checkpoint is durable after it was decided; there is one every 500,000 bytes.
    const journal = () => ['journal.a', 'journal.b'].map((copy) => readFileSync(join(base, 'state', copy), 'latin1'));
    await eventually(() => journal().some((copy) => /"offset":[1-9]/.test(copy)), 'a checkpoint');
    first.child.kill('SIGKILL');
    await once(first.child, 'close');
    state.hang = undefined;
    const second = start();
    await second.prints('completed');
    assert.deepEqual(readFileSync(join(base, 'app.bin')), image);
    assert.match(requests[1], /^bytes=[1-9]\d+-$/);
    await eventually(async () => (await reported('killed')).iothubDM.firmwareUpdate.status === 'applyComplete', 'the report');
    second.child.kill('SIGTERM');
    assert.deepEqual(await once(second.child, 'close'), [0, null]);
  });
});
