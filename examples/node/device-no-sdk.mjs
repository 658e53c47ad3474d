// A device with no SDK: the package's own connection to the hub. Ends after one update, with status 0 if it succeeded.
//
//   twinflash hub --device device1 --state hub            (a hub on this machine; not with Azure)
//   npm install
//   export HUB_CA=hub/ca.pem                              (not with Azure)
//   export TWINFLASH_DEVICE='HostName=…;DeviceId=device1;SharedAccessKey=…'
//   node device-no-sdk.mjs
//
// Then service-iothub-dm.js asks for an update. FIRMWARE_CA: as in device-direct-method.js.

import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { Device, Updater } from 'twinflash';

mkdirSync('firmware', { recursive: true });
const updater = new Updater({
  stateDir: 'firmware/state',
  contract: 'iothub-dm',
  currentVersion: '1.0.0',
  install: { file: 'firmware/app.bin' },
  http: { ca: process.env.FIRMWARE_CA },
  connectionString: process.env.TWINFLASH_DEVICE,
  ca: process.env.HUB_CA,
});
updater.on('phase', (phase) => console.log(phase));
const device = new Device(updater);
device.on('connect', () => console.log('connected'));
device.on('disconnect', (error) => console.log(`not connected: ${error.message}`));

// Ctrl-C ends the wait; what runs goes on at the next start.
const stop = new AbortController();
process.once('SIGINT', () => stop.abort());
try {
  const [{ outcome, success, error }] = await once(updater, 'ended', { signal: stop.signal });
  // The hub has been told, too.
  await updater.done({ timeout: 60 });
  console.log(error ? `${outcome}: ${error.message}` : outcome);
  process.exitCode = success ? 0 : 1;
} catch (error) {
  if (error.name !== 'AbortError') throw error;
} finally {
  await device.close();
}
