// The device of the Node tutorial's later programs: desired properties ask for the firmware, set by an automatic device configuration or in
// the device's own twin; what it reports is what the configuration's metrics count.
//
//   twinflash hub --device device1 --state hub            (a hub on this machine; not with Azure)
//   npm install
//   export NODE_EXTRA_CA_CERTS=hub/ca.pem                 (not with Azure)
//   export TWINFLASH_DEVICE='HostName=…;DeviceId=device1;SharedAccessKey=…'
//   node device-configuration.js
//
// Then service-configuration.js asks for an update. FIRMWARE_CA: as in device-direct-method.js. A new firmware that does not pass the self
// test is taken back: the old file is there again, and the twin says `rolledback`.

const { Client } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const { mkdirSync, readFileSync } = require('node:fs');
const { Updater, attach } = require('twinflash');

const FILE = 'firmware/app.bin';

/** Whether the new firmware does what it should; here, whether it begins as firmware does. */
const selfTest = () => readFileSync(FILE).subarray(0, 2).toString() === 'FW';

async function main() {
  mkdirSync('firmware', { recursive: true });
  const updater = new Updater({
    stateDir: 'firmware/state',
    contract: 'configuration',
    currentVersion: '1.0.0',
    install: { file: FILE },
    policy: { confirm: 'call', confirmTime: 3 },
    http: { ca: process.env.FIRMWARE_CA },
  });
  updater.on('phase', (phase) => {
    console.log(phase);
    if (phase === 'confirming' && selfTest()) updater.confirm();
  });
  updater.on('refused', (error) => console.warn(`refused: ${error.message}`));
  updater.on('ended', ({ outcome, error }) => console.log(error ? `${outcome}: ${error.message}` : outcome));

  const client = Client.fromConnectionString(process.env.TWINFLASH_DEVICE, Mqtt);
  await client.open();
  // A line that broke the SDK makes anew, but not where that takes more than four minutes.
  const reopen = () =>
    client.open().catch((error) => {
      console.warn(`not connected: ${error.message}`);
      setTimeout(reopen, 5000);
    });
  client.on('disconnect', reopen);
  await attach(client, updater);
  // The program's other desired properties are its own, as before.
  const twin = await client.getTwin();
  twin.on('properties.desired.interval', (interval) => console.log(`interval: ${interval}`));
  console.log('Waiting for the desired property firmware.');

  process.once('SIGTERM', async () => {
    await updater.close();
    await client.close();
    process.exit();
  });
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
