// The back end of the tutorial "Implement a device firmware update process" (Node, 2018): calls the direct method firmwareUpdate,
// then reads the twin once a second until the update is complete or has failed.
//
//   npm install
//   export NODE_EXTRA_CA_CERTS=hub/ca.pem                            (not with Azure)
//   export TWINFLASH_SERVICE='HostName=…;SharedAccessKeyName=…;SharedAccessKey=…'
//   node service-direct-method.js DEVICE https://example.com/firmware.bin [CHECK VALUE]
//
// Contract: node-direct-method.

const { Client, Registry } = require('azure-iothub');
const { commandLine, why } = require('./command-line.js');

const { arguments: given, service } = commandLine(2, 'DEVICE URL [CHECK]');
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
  console.error(`The update could not be started or followed: ${why(error)}`);
  process.exitCode = 1;
});
