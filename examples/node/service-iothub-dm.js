// The back end of the tutorial "How to do a firmware update" (Node, 2016), whose device is a state machine: calls the direct method
// ihdmFirmwareUpdate and, without waiting for its answer, queries the device's twin once a second. It goes on until Ctrl-C.
//
// With --loop that of its successor, "Use device management to initiate a device firmware update" (.NET), for Node: calls
// firmwareUpdate, reads the twin every 500 ms, shows the device's part of it whenever it moved, and stops when the update has ended.
//
//   npm install
//   export NODE_EXTRA_CA_CERTS=hub/ca.pem                            (not with Azure)
//   export TWINFLASH_SERVICE='HostName=…;SharedAccessKeyName=…;SharedAccessKey=…'
//   node service-iothub-dm.js DEVICE https://example.com/firmware.bin [CHECK VALUE] [--loop]
//
// Contract: iothub-dm.

const { Client, Registry } = require('azure-iothub');
const { setTimeout: sleep } = require('node:timers/promises');
const { commandLine, why } = require('./command-line.js');

const { arguments: given, service } = commandLine(2, 'DEVICE URL [CHECK] [--loop]');
const loop = given.at(-1) === '--loop';
const [device, fwPackageUri, fwPackageCheckValue] = loop ? given.slice(0, -1) : given;
const registry = Registry.fromConnectionString(service);

async function call(methodName) {
  const method = { methodName, payload: { fwPackageUri, fwPackageCheckValue }, responseTimeoutInSeconds: 30 };
  const { result } = await Client.fromConnectionString(service).invokeDeviceMethod(device, method);
  if (result.status === 200) return true;
  console.error(`The device refused: ${result.status} ${JSON.stringify(result.payload)}`);
  return false;
}

async function show() {
  try {
    const found = await registry.createQuery(`SELECT * FROM devices WHERE deviceId = '${device}'`).nextAsTwin();
    console.log(`FWUpdate reported: ${JSON.stringify(found.result[0].properties.reported.iothubDM.firmwareUpdate)}`);
  } catch (error) {
    console.error(`Could not query twins: ${why(error)}`);
  }
}

const reported = async () => (await registry.getTwin(device)).responseBody.properties.reported;

/** Shows what has moved since `last`, until an end; whether it is a good one. */
async function follow(last) {
  for (; ; await sleep(500)) {
    const { iothubDM, $metadata } = await reported();
    if ($metadata.$lastUpdated === last) continue;
    last = $metadata.$lastUpdated;
    console.log(JSON.stringify(iothubDM));
    const { status } = iothubDM.firmwareUpdate;
    if (status === 'applyComplete') return true;
    if (status === 'downloadFailed' || status === 'applyFailed') return false;
  }
}

async function main() {
  const last = (await reported()).$metadata.$lastUpdated;
  if (loop) {
    process.exitCode = (await call('firmwareUpdate')) && (await follow(last)) ? 0 : 1;
  } else {
    call('ihdmFirmwareUpdate').catch((error) => console.error(`Could not start the firmware update on the device: ${why(error)}`));
    setInterval(show, 1000);
  }
}

main().catch((error) => {
  console.error(why(error));
  process.exitCode = 1;
});
