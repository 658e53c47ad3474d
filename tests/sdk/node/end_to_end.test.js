// The whole way: azure-iothub as the back end, `twinflash device` as the device, and a firmware server of Node's own.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test from 'node:test';
import { call, eventually, leftOut, ready, registry } from './hub.js';

const twinflash = process.env.TWINFLASH_HUB.split(' ')[0];

/** Serves `images` over HTTPS, with a certificate that signs itself. */
async function firmwareServer(t, directory, images) {
  const [key, ca] = [join(directory, 'key.pem'), join(directory, 'ca.pem')];
  const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-addext', 'basicConstraints=critical,CA:FALSE'];
  execFileSync(
    'openssl',
    ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', ...names, '-keyout', key, '-out', ca],
    { stdio: 'ignore' },
  );
  const server = createServer({ key: readFileSync(key), cert: readFileSync(ca) }, (request, response) => {
    const image = images[new URL(request.url, 'https://localhost').pathname.slice(1)];
    response.writeHead(image ? 200 : 404, image ? { 'Content-Length': image.length } : {}).end(image);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close() && server.closeAllConnections());
  return { ca, url: (name) => `https://localhost:${server.address().port}/${name}` };
}

test('a back end in Node updates a file', { skip: leftOut }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'twinflash-node-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const image = randomBytes(5_000_000);
  const file = join(directory, 'image.bin');
  writeFileSync(file, image);
  const target = join(directory, 'app.bin');
  writeFileSync(target, 'the old firmware');
  const server = await firmwareServer(t, directory, { 'image.bin': image });
  const described = JSON.parse(execFileSync(twinflash, ['image', 'info', '--json', file]));

  const config = join(directory, 'device.toml');
  writeFileSync(
    config,
    `connection_string = "${ready.devices.agent}"
    ca = "${ready.ca}"
    contract = "iothub-dm"
    state_dir = "state"
    current_version = "1.0.0"
    [install]
    file = "app.bin"
    [http]
    ca = "${server.ca}"
    `,
  );
  const agent = spawn(twinflash, ['device', '--json', '--config', config], { stdio: ['ignore', 'pipe', 'inherit'] });
  const events = [];
  createInterface(agent.stdout).on('line', (line) => events.push(JSON.parse(line)));
  t.after(async () => {
    agent.kill('SIGTERM');
    assert.deepEqual(await once(agent, 'exit'), [0, null]);
  });
  await eventually(() => events.some((event) => event.event === 'connected'), 'the agent is connected');

  const reported = async () => (await registry().getTwin('agent')).responseBody.properties.reported.iothubDM?.firmwareUpdate;
  const status = (wanted) =>
    eventually(async () => {
      const now = await reported();
      return now?.status === wanted && now;
    }, wanted);

  const answer = await call('agent', 'firmwareUpdate', {
    fwPackageUri: server.url('image.bin?sig=secret'),
    fwPackageCheckValue: described.sha256,
  });
  assert.deepEqual(answer, { status: 200, payload: 'FirmwareUpdate started.' });
  const done = await status('applyComplete');
  assert.equal(done.fwPackageUri, server.url('image.bin'));
  assert.equal(done.error, undefined);
  assert.ok(readFileSync(target).equals(image), 'the file is the image');

  // The next one can start; it fails, says why, and leaves the file alone.
  assert.equal((await call('agent', 'firmwareUpdate', { fwPackageUri: server.url('none.bin') })).status, 200);
  assert.notEqual((await reported()).status, 'applyComplete');
  const failed = await status('downloadFailed');
  assert.equal(failed.error.code, 'http-status');
  const refused = await call('agent', 'firmwareUpdate', { fwPackageUri: 'http://localhost/image.bin' });
  assert.equal(refused.status, 400);
  assert.ok(readFileSync(target).equals(image));
  assert.ok(!JSON.stringify(events).includes('secret'));
});
