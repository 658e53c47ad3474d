// An installer of one's own: the image is an application in a .tar.gz. It is unpacked into a directory of its own, and a link tells which
// one is current: activating and going back is one rename each. Needs `tar`, and an archive with an `app.js` in it.
//
//   twinflash hub --device device1 --state hub            (a hub on this machine; not with Azure)
//   npm install
//   export HUB_CA=hub/ca.pem                              (not with Azure)
//   export TWINFLASH_DEVICE='HostName=…;DeviceId=device1;SharedAccessKey=…'
//   node own-installer.mjs
//
// Then service-iothub-dm.js asks for an update. FIRMWARE_CA: as in device-direct-method.js.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { access, mkdir, open, readdir, readlink, rename, rm, stat, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Device, Updater } from 'twinflash';

const run = promisify(execFile);
const target = (link) => readlink(link).catch(() => null);

/** What is in a directory under that name stays so over a power cut. */
async function syncDirectory(directory) {
  const opened = await open(directory);
  await opened.sync().finally(() => opened.close());
}

/**
 *     app/current      link to the release that runs
 *     app/next         link to the release of the last update, from `finish` on
 *     app/back         link to the release it goes back to
 *     app/incoming     the archive, as far as it has come
 *     app/releases/…   one directory each
 *
 * The old release goes when the next update begins: until it is saved that the new one is confirmed, it may have to be taken back.
 */
class ArchiveInstall {
  #file;
  #end;

  constructor(directory) {
    this.at = (...names) => join(directory, ...names);
  }

  async inspect() {
    await mkdir(this.at('releases'), { recursive: true });
    const [current, next] = await Promise.all([target(this.at('current')), target(this.at('next'))]);
    if (next) return current === next ? 'new' : 'partial';
    return (await stat(this.at('incoming')).catch(() => null)) ? 'partial' : 'old';
  }

  /** Also for each new attempt at a download. */
  async begin(image, resumeAt) {
    await this.#close();
    const there = await stat(this.at('incoming')).catch(() => ({ size: 0 }));
    this.#end = there.size >= resumeAt ? resumeAt : 0;
    if (!this.#end) await this.#clear();
    this.#file = await open(this.at('incoming'), 'a');
    await this.#file.truncate(this.#end);
    return this.#end;
  }

  async write(offset, bytes) {
    await this.#file.appendFile(bytes);
    this.#end = offset + bytes.length;
  }

  async sync() {
    await this.#file.sync();
    return this.#end;
  }

  async finish() {
    await this.#close();
    const hash = createHash('sha256');
    for await (const bytes of createReadStream(this.at('incoming'))) hash.update(bytes);
    const release = this.#release(hash.digest('hex'));
    const current = await target(this.at('current'));
    if (release !== current) {
      await rm(this.at(release), { recursive: true, force: true });
      await mkdir(this.at(release));
      await run('tar', ['-xzf', this.at('incoming'), '-C', this.at(release)]);
      await access(this.at(release, 'app.js'));
      await run('sync', ['-f', this.at(release)]);
    }
    if (current) await this.#link('back', current);
    await this.#link('next', release);
  }

  async activate() {
    await this.#link('current', await readlink(this.at('next')));
  }

  async confirm() {
    await rm(this.at('incoming'), { force: true });
  }

  async rollback() {
    const back = await target(this.at('back'));
    if (back) await this.#link('current', back);
    else await rm(this.at('current'), { force: true });
    await this.#clear();
  }

  async abort() {
    await this.#close();
    await this.#clear();
  }

  /** The same archive need not be fetched again. */
  async holds(sha256) {
    return (await target(this.at('current'))) === this.#release(sha256);
  }

  /** Named by its content: a version is the back end's word, and no file name. */
  #release(sha256) {
    return join('releases', sha256.slice(0, 16));
  }

  async #close() {
    await this.#file?.close();
    this.#file = undefined;
  }

  /** Removes all but what is current. `back` goes last: without it there is no way back. */
  async #clear() {
    for (const name of ['incoming', 'next', 'back']) {
      await rm(this.at(name), { force: true });
      await syncDirectory(this.at());
    }
    const current = await target(this.at('current'));
    for (const name of await readdir(this.at('releases'))) {
      if (join('releases', name) !== current) await rm(this.at('releases', name), { recursive: true });
    }
  }

  /** In one step: a link is there as it was, or as it is to be. */
  async #link(name, to) {
    await rm(this.at(`${name}.new`), { force: true });
    await symlink(to, this.at(`${name}.new`));
    await rename(this.at(`${name}.new`), this.at(name));
    await syncDirectory(this.at());
  }
}

const updater = await Updater.open({
  stateDir: 'firmware/state',
  contract: 'iothub-dm',
  currentVersion: '1.0.0',
  install: new ArchiveInstall('firmware/app'),
  http: { ca: process.env.FIRMWARE_CA },
  connectionString: process.env.TWINFLASH_DEVICE,
  ca: process.env.HUB_CA,
});
updater.on('phase', (phase) => console.log(phase));
updater.on('ended', ({ outcome, error }) => console.log(error ? `${outcome}: ${error.message}` : outcome));
const device = new Device(updater);
device.on('connect', () => console.log('connected'));
device.on('disconnect', (error) => console.log(`not connected: ${error.message}`));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => device.close());
