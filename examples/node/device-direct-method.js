// The device of the tutorial "Implement a device firmware update process" (Node, 2018), with a real update in place of the simulated
// one: the direct method firmwareUpdate starts it, reported properties tell how far it is.
//
//   twinflash hub --device device1 --state hub            (a hub on this machine; not with Azure)
//   npm install
//   export NODE_EXTRA_CA_CERTS=hub/ca.pem                 (not with Azure)
//   export TWINFLASH_DEVICE='HostName=…;DeviceId=device1;SharedAccessKey=…'
//   node device-direct-method.js
//
// Then service-direct-method.js asks for an update of firmware/app.bin. FIRMWARE_CA names the authorities of the server it is fetched
// from, where they are none of the public ones (firmware-server.mjs prints its own).

const { Client } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const { mkdirSync } = require('node:fs');
const { Updater, attach } = require('twinflash');

async function main() {
  mkdirSync('firmware', { recursive: true });
  const updater = new Updater({
    stateDir: 'firmware/state',
    contract: 'node-direct-method',
    currentVersion: '1.0.0',
    install: { file: 'firmware/app.bin' },
    http: { ca: process.env.FIRMWARE_CA },
  });
  updater.on('phase', (phase) => console.log(`phase: ${phase}`));
  updater.on('progress', ({ bytes, total }) => console.log(`${bytes} of ${total ?? '?'} bytes`));
  updater.on('warning', (text) => console.warn(text));
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
  // The program's other methods are its own, as before.
  client.onDeviceMethod('reboot', (request, response) => response.send(200, 'Rebooting.', () => {}));
  await attach(client, updater);
  console.log('Waiting for the direct method firmwareUpdate.');

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
