// A device with no SDK: the package's own connection to the hub. Ends after one update, with status 0 if it succeeded.
//
//   twinflash hub --device device1      (a hub on this machine; not with Azure)
//   npm install
//   export HUB_CA=<what the hub printed>   (not with Azure)
//   node device-no-sdk.mjs 'HostName=…;DeviceId=device1;SharedAccessKey=…'
//
// FIRMWARE_CA: as in device-direct-method.js.

import { mkdirSync } from 'node:fs';
import { Device, Updater } from 'twinflash';

mkdirSync('firmware', { recursive: true });
const updater = new Updater({
  stateDir: 'firmware/state',
  contract: 'iothub-dm',
  currentVersion: '1.0.0',
  install: { file: 'firmware/app.bin' },
  http: { ca: process.env.FIRMWARE_CA },
  connectionString: process.argv[2],
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
  const { outcome, success, error } = await updater.done({ signal: stop.signal });
  console.log(error ? `${outcome}: ${error.message}` : outcome);
  process.exitCode = success ? 0 : 1;
} catch (error) {
  if (error.name !== 'AbortError') throw error;
} finally {
  await device.close();
}
