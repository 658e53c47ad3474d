// The back end of the tutorial "Implement a device firmware update process" (Node, 2018): calls the direct method firmwareUpdate and
// follows the reported properties to the end. Exit status 0 if the device runs the new firmware.
//
//   export NODE_EXTRA_CA_CERTS=<what the hub printed>   (not with Azure)
//   export TWINFLASH_SERVICE='HostName=…;SharedAccessKeyName=…;SharedAccessKey=…'
//   node service-direct-method.js device1 https://example.com/firmware.bin [SHA-256]

const { Client, Registry } = require('azure-iothub');
const { setTimeout: sleep } = require('node:timers/promises');

const service = process.env.TWINFLASH_SERVICE;
const [device, fwPackageUri, fwPackageCheckValue] = process.argv.slice(2);
const END = { 'apply firmware image complete': 0, 'apply image failed': 1, 'download image failed': 1 };

async function main() {
  const { result } = await Client.fromConnectionString(service).invokeDeviceMethod(device, {
    methodName: 'firmwareUpdate',
    payload: { fwPackageUri, fwPackageCheckValue },
    responseTimeoutInSeconds: 30,
  });
  console.log(`${result.status}: ${result.payload}`);
  if (result.status !== 200) return 1;

  const registry = Registry.fromConnectionString(service);
  for (let last; ; await sleep(500)) {
    const { responseBody: twin } = await registry.getTwin(device);
    const { status, error } = twin.properties.reported.firmwareUpdate ?? {};
    if (status !== last) console.log(error ? `${status}: ${error.message}` : status);
    if (status in END) return END[status];
    last = status;
  }
}

main().then(
  (code) => (process.exitCode = code),
  (error) => {
    console.error(error.message);
    process.exitCode = 1;
  },
);
