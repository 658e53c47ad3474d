// The back end of the Node tutorial's later programs: creates an automatic device configuration and shows its metrics until Ctrl-C.
// With --device it sets the same desired properties in the twin of one device, and shows what that reports until it ends.
//
//   npm install
//   export NODE_EXTRA_CA_CERTS=hub/ca.pem                            (not with Azure)
//   export TWINFLASH_SERVICE='HostName=…;SharedAccessKeyName=…;SharedAccessKey=…'
//   node service-configuration.js VERSION https://example.com/firmware.bin CHECK [--device DEVICE]
//
// `twinflash image info` prints check values. A configuration reaches the devices with the tag devicetype = 'chiller'.
// Contract: configuration.

const { Registry } = require('azure-iothub');
const { commandLine, why } = require('./command-line.js');

const { arguments: given, service } = commandLine(3, 'VERSION URL CHECK [--device DEVICE]');
const [fwVersion, fwPackageURI, fwPackageCheckValue, option, device] = given;
const registry = Registry.fromConnectionString(service);
const ID = 'firmware285';
const firmware = { fwVersion, fwPackageURI, fwPackageCheckValue };

function configuration() {
  const inState = (...states) => {
    const any = states.map((state) => `properties.reported.firmware.fwUpdateStatus='${state}'`).join(' OR ');
    return `SELECT deviceId FROM devices WHERE configurations.[[${ID}]].status='Applied' AND ${states.length > 1 ? `( ${any} )` : any}`;
  };
  return {
    id: ID,
    schemaVersion: '1.0',
    labels: { App: 'Chiller firmware' },
    content: { deviceContent: { 'properties.desired.firmware': firmware } },
    targetCondition: "tags.devicetype = 'chiller'",
    priority: 20,
    metrics: {
      queries: {
        current: inState('current'),
        applying: inState('downloading', 'verifying', 'applying'),
        rebooting: inState('rebooting'),
        error: inState('error'),
        rolledback: inState('rolledback'),
      },
    },
  };
}

async function rollOut() {
  await registry.addConfiguration(configuration());
  for (;;) {
    const { systemMetrics, metrics } = (await registry.getConfiguration(ID)).responseBody;
    console.log(JSON.stringify({ system: systemMetrics.results, custom: metrics.results }));
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function patch() {
  const before = (await registry.getTwin(device)).responseBody.properties.reported.$version;
  await registry.updateTwin(device, { properties: { desired: { firmware } } }, '*');
  let shown;
  for (;;) {
    const { $version, firmware: reported } = (await registry.getTwin(device)).responseBody.properties.reported;
    const now = JSON.stringify(reported);
    if (now !== shown) console.log(now);
    shown = now;
    if (reported.fwUpdateStatus === 'current' && reported.currentFwVersion === fwVersion) return true;
    // An error that stood there before is not the answer to this.
    if ($version > before && ['error', 'rolledback'].includes(reported.fwUpdateStatus)) return false;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

async function main() {
  if (option === '--device') process.exitCode = (await patch()) ? 0 : 1;
  else await rollOut();
}

main().catch((error) => {
  console.error(why(error));
  process.exitCode = 1;
});
