// The back end of the tutorial "How to do a firmware update" (Node, 2016), whose device is a state machine: calls the direct method
// ihdmFirmwareUpdate and, without waiting for its answer, queries the device's twin once a second. It goes on until Ctrl-C.
//
//   npm install
//   export NODE_EXTRA_CA_CERTS=<the hub's certificate authority>     (not for Azure)
//   node node_state_machine.js DEVICE https://example.com/firmware.bin [CHECK VALUE]
//
// The service's connection string is in TWINFLASH_SERVICE or follows --service. Contract: iothub-dm.

const { Client, Registry } = require('azure-iothub');
const { arguments: given, service } = require('./command_line.js')(2, 'DEVICE URL [CHECK]');

const [device, fwPackageUri, fwPackageCheckValue] = given;
const registry = Registry.fromConnectionString(service);

async function start() {
  const call = { methodName: 'ihdmFirmwareUpdate', payload: { fwPackageUri, fwPackageCheckValue } };
  try {
    const { result } = await Client.fromConnectionString(service).invokeDeviceMethod(device, call);
    if (result.status !== 200) console.error(`The device refused: ${result.status} ${JSON.stringify(result.payload)}`);
  } catch (error) {
    console.error(`Could not start the firmware update on the device: ${error.message}`);
  }
}

async function show() {
  try {
    const found = await registry.createQuery(`SELECT * FROM devices WHERE deviceId = '${device}'`).nextAsTwin();
    console.log(`FWUpdate reported: ${JSON.stringify(found.result[0].properties.reported.iothubDM.firmwareUpdate)}`);
  } catch (error) {
    console.error(`Could not query twins: ${error.message}`);
  }
}

async function main() {
  await registry.getTwin(device);
  start();
  setInterval(show, 1000);
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
