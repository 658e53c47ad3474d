// A server of firmware on this machine, for trying: every file of a directory over https, in parts too, so that a download goes on where
// it broke off. Its certificate, which openssl makes anew at each start, vouches for itself.
//
//   node firmware-server.mjs DIRECTORY [PORT]
//
// Prints the certificate's file, which the devices here take as FIRMWARE_CA, and the address.

import { execFileSync } from 'node:child_process';
import { createReadStream, mkdtempSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:https';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

const [directory, port = '0'] = process.argv.slice(2);
const made = mkdtempSync(join(tmpdir(), 'firmware-server-'));
const [key, cert] = [join(made, 'key.pem'), join(made, 'ca.pem')];
const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-addext', 'basicConstraints=critical,CA:FALSE'];
const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30'];
execFileSync('openssl', ['req', '-x509', ...kind, ...names, '-keyout', key, '-out', cert], { stdio: ['ignore', 'ignore', 'pipe'] });

const server = createServer({ key: readFileSync(key), cert: readFileSync(cert) }, (request, response) => {
  const name = basename(new URL(request.url, 'https://localhost').pathname);
  const file = join(directory, name);
  const found = statSync(file, { throwIfNoEntry: false });
  if (!found?.isFile()) return response.writeHead(404).end();
  const etag = `"${found.size}-${found.mtimeMs}"`;
  // From where the download broke off, if the file is still the same.
  const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? '');
  const start = range && (request.headers['if-range'] ?? etag) === etag ? Number(range[1]) : 0;
  if (start >= found.size && start > 0) return response.writeHead(416, { 'Content-Range': `bytes */${found.size}` }).end();
  const head = { 'Content-Length': found.size - start, 'Accept-Ranges': 'bytes', ETag: etag };
  if (start) head['Content-Range'] = `bytes ${start}-${found.size - 1}/${found.size}`;
  response.writeHead(start ? 206 : 200, head);
  return createReadStream(file, { start }).pipe(response);
});
server.listen(Number(port), '127.0.0.1', () => {
  console.log(`export FIRMWARE_CA=${cert}`);
  console.log(`https://localhost:${server.address().port}/`);
});
