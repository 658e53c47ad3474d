// The package as a subject of tests/scenarios: requests come in as lines of JSON, answers and what happens go out as such. See
// "A subject" in tests/scenarios/README.md.

import { createInterface } from 'node:readline';
import { inspect } from 'node:util';
import { guard, TwinflashError, Updater } from 'twinflash';

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

let updater;

/** Keys as this package has them. */
function ours(value) {
  if (Array.isArray(value) || value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase()), ours(item)]));
}

const outcome = (ended) => ended && { outcome: ended.outcome, phase: ended.phase, code: ended.error?.code, message: ended.error?.message };

const does = {
  start({ id: of, config }) {
    updater = new Updater({ ...ours(config), onRestart: (restart) => say({ of, restart }) });
    updater.on('report', (report) => say({ of, report }));
    updater.on('readTwin', () => say({ of, readTwin: true }));
    updater.on('warning', (warning) => say({ of, warning }));
    for (const name of ['accepted', 'phase', 'progress', 'retry', 'verified', 'ended', 'refused', 'keysRotated']) {
      updater.on(name, (...values) => say({ of, event: `${name} ${inspect(values, { depth: null })}` }));
    }
  },
  method: ({ name, payload }) => updater.handleMethod(name, Buffer.from(payload)),
  twin: ({ complete, json }) => updater.handleTwin(Buffer.from(json), complete),
  connected: ({ connected }) => updater.connected(connected),
  report_done: ({ report, status }) => updater.reportDone(report, status),
  cancel: () => updater.cancel(),
  pause: () => updater.pause(),
  resume: () => updater.resume(),
  confirm: () => updater.confirm(),
  async wait({ seconds }) {
    try {
      return outcome(await updater.done({ timeout: seconds }));
    } catch (error) {
      if (error.name === 'TimeoutError' || error.code === 'state') return null;
      throw error;
    }
  },
  status() {
    const status = updater.status();
    return { ...status, outcome: outcome(status.outcome), retry: inspect(status.retry) };
  },
  close: () => updater.close(),
  guard({ state_dir: stateDir }) {
    const { kind, starts, allowed } = guard(stateDir);
    return kind === 'counted' ? `${starts} of ${allowed}` : kind;
  },
};

async function answer({ id, do: what, ...given }) {
  try {
    say({ id, ok: (await does[what]({ id, ...given })) ?? null });
  } catch (error) {
    if (error instanceof TwinflashError) say({ id, error: { code: error.code, message: error.message } });
    else say({ id, error: { code: 'fault', message: inspect(error) } });
  }
}

for await (const line of createInterface(process.stdin)) {
  const request = JSON.parse(line);
  const answered = answer(request);
  // These wait for what other requests bring.
  if (request.do !== 'method' && request.do !== 'wait') await answered;
}
await updater?.close();
