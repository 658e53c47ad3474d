// The back end of the tutorial "Implement a device firmware update process" (Node, 2018): calls the direct method firmwareUpdate,
// then reads the twin once a second until the update is complete or has failed.
//
//   npm install
//   export NODE_EXTRA_CA_CERTS=<the hub's certificate authority>     (not for Azure)
//   node node_direct_method.js DEVICE https://example.com/firmware.bin [CHECK VALUE]
//
// The service's connection string is in TWINFLASH_SERVICE or follows --service. Contract: node-direct-method.

const { Client, Registry } = require('azure-iothub');
const { arguments: given, service } = require('./command_line.js')(2, 'DEVICE URL [CHECK]');

const [device, fwPackageUri, fwPackageCheckValue] = given;
const DONE = 'apply firmware image complete';
const FAILED = ['download image failed', 'apply image failed'];

async function start() {
  const payload = { fwPackageUri, fwPackageCheckValue };
  const call = { methodName: 'firmwareUpdate', payload, responseTimeoutInSeconds: 30 };
  const { result } = await Client.fromConnectionString(service).invokeDeviceMethod(device, call);
  console.log(`${result.status} ${JSON.stringify(result.payload)}`);
  return result.status === 200;
}

async function follow() {
  const registry = Registry.fromConnectionString(service);
  for (;;) {
    const twin = (await registry.getTwin(device)).responseBody;
    const update = twin.properties.reported.firmwareUpdate;
    console.log(JSON.stringify(update));
    if (update.status === DONE) return true;
    if (FAILED.includes(update.status)) return false;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function main() {
  process.exitCode = (await start()) && (await follow()) ? 0 : 1;
}

main().catch((error) => {
  console.error(`The update could not be started or followed: ${error.message}`);
  process.exitCode = 1;
});
