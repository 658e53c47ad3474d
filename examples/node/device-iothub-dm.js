// The device of the tutorial "How to do a firmware update" (Node, 2016), and of its .NET successor: the direct method firmwareUpdate, or
// ihdmFirmwareUpdate, and the reported properties iothubDM.firmwareUpdate. Its state machine is the updater's; the program only waits
// for one update after the other.
//
//   twinflash hub --device device1 --state hub            (a hub on this machine; not with Azure)
//   npm install
//   export NODE_EXTRA_CA_CERTS=hub/ca.pem                 (not with Azure)
//   export TWINFLASH_DEVICE='HostName=…;DeviceId=device1;SharedAccessKey=…'
//   node device-iothub-dm.js
//
// Then service-iothub-dm.js asks for an update. FIRMWARE_CA: as in device-direct-method.js.

const { Client } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const { mkdirSync } = require('node:fs');
const { Updater, attach } = require('twinflash');

async function main() {
  mkdirSync('firmware', { recursive: true });
  const updater = new Updater({
    stateDir: 'firmware/state',
    contract: 'iothub-dm',
    currentVersion: '1.0.0',
    install: { file: 'firmware/app.bin' },
    http: { ca: process.env.FIRMWARE_CA },
  });
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
  console.log('Waiting for the direct method firmwareUpdate.');

  process.once('SIGTERM', async () => {
    await updater.close();
    await client.close();
    process.exit();
  });

  for await (const { type, value } of updater.events()) {
    if (type === 'accepted') console.log(`update to version ${value.version ?? '(none given)'} from ${value.uri}`);
    if (type === 'phase') console.log(value);
    if (type === 'retry') console.log(`again in ${value.after.toFixed(1)} s: ${value.error.message}`);
    if (type === 'ended') console.log(value.success ? 'the new firmware is in place' : `${value.outcome}: ${value.error?.message ?? ''}`);
  }
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
