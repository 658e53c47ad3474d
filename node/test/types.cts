// What TypeScript must take, and what it must not: checked by `tsc --strict`, never run.

import { attach, codes, Device, guard, TwinflashError, Updater, version } from 'twinflash';
import type { Answer, Code, Installer, Outcome, Phase, Status, UpdaterEvent, UpdaterOptions } from 'twinflash';
import twinflash = require('twinflash');

const file: UpdaterOptions = { stateDir: 's', install: { file: 'f', restart: ['systemctl', 'restart', 'app'] }, policy: { confirm: 'call' } };
const slots: UpdaterOptions = { stateDir: 's', install: { slots: { A: 'a', B: 'b' }, switch: { link: 'l' } } };
const command: UpdaterOptions = { stateDir: 's', contract: { contract: 'own' }, install: { command: ['rauc', 'install', '{image}'] } };
const own: Installer = {
  inspect: () => 'old',
  begin: async (image, resumeAt) => (image.size === null ? 0 : resumeAt),
  write: async (offset: number, bytes: Buffer) => {},
  sync: () => 0,
  finish() {},
  activate() {},
  confirm() {},
  rollback() {},
  abort() {},
};
// @ts-expect-error: no such phase
const phase: Phase = 'sleeping';
// @ts-expect-error: an option that is not there
const misspelt: UpdaterOptions = { stateDir: 's', install: { file: 'f' }, policy: { retryTme: 1 } };
// @ts-expect-error: an option of another table
const elsewhere: UpdaterOptions = { stateDir: 's', install: { file: 'f' }, trust: { floor: '1' } };
// @ts-expect-error: images are always fetched here
const source: UpdaterOptions = { stateDir: 's', install: { file: 'f' }, source: 'offered' };
// @ts-expect-error: no install
const without: UpdaterOptions = { stateDir: 's' };
// @ts-expect-error: half an installer
const half: Installer = { inspect: () => 'old' };

export async function use(client: import('azure-iot-device').Client): Promise<void> {
  const updater: Updater = await Updater.open({ stateDir: 's', install: own });
  updater.on('phase', (phase: Phase) => phase.toUpperCase());
  updater.on('progress', ({ bytes, total }) => bytes + (total ?? 0));
  updater.on('ended', (outcome: Outcome) => outcome.error?.code);
  updater.on('report', ({ id, patch }) => updater.reportDone(id, Object.keys(patch).length ? 204 : 0));
  updater.once('readTwin', () => updater.handleTwin({}));
  // @ts-expect-error: no such event
  updater.on('fase', () => {});
  // @ts-expect-error: a phase is a string
  updater.on('phase', (phase: number) => phase);
  const answer: Answer | null = await updater.handleMethod('firmwareUpdate', { fwPackageUri: 'u' });
  // @ts-expect-error: it may be null
  answer.status;
  const status: Status = updater.status();
  const outcome: Outcome = await updater.done({ signal: AbortSignal.timeout(1000), timeout: 5 });
  const code: Code | undefined = outcome.error?.code ?? status.retry?.error.code ?? codes[0];
  for await (const event of updater.events()) {
    const some: UpdaterEvent = event;
    if (event.type === 'verified') event.value.sha256.length;
    if (some.type === 'warning') some.value.length;
    // @ts-expect-error: not told apart yet
    event.value.sha256;
  }
  updater.pause();
  await updater.flush({ timeout: 5 });
  updater.on('waiting', ({ for: reason, before, after }) => `${reason} ${before} ${after ?? 0}`);
  // @ts-expect-error: nothing waits for that
  if (status.waiting?.for === 'godot') updater.resume();
  const cancelled: boolean = updater.cancel() || updater.approve() || updater.defer(60);
  updater.installFile('f', { version: '2', check: 'crc32:00000000', manifest: 'm' });
  // @ts-expect-error: a version is a string
  updater.installFile('f', { version: 2 });
  const { kind, starts, allowed } = guard('s');
  if (kind === 'counted' && starts > allowed) throw new TwinflashError('too many starts', 'not-confirmed');
  const link = await attach(client, updater);
  link.detach();
  const device = new Device(updater, { connectionString: '@file', ca: 'system' });
  device.on('disconnect', (error) => error.code);
  await device.close();
  await updater[Symbol.asyncDispose]();
  console.log(version, twinflash.version, code, file, slots, command, phase, misspelt, elsewhere, source, without, half, cancelled);
}
