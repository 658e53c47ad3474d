// A device on azure-iot-device for azure-line.test.js: its directory, and its connection string.

import { join } from 'node:path';
import device from 'azure-iot-device';
import transports from 'azure-iot-device-mqtt';
import { attach, Updater } from 'twinflash';

const [base, connection] = process.argv.slice(2);
const updater = new Updater({
  stateDir: join(base, 'state'),
  currentVersion: '1.0.0',
  install: { file: join(base, 'app.bin') },
  policy: { allowHttp: true, checkpointBytes: 500_000 },
});
updater.on('progress', ({ bytes }) => console.log(`${bytes} bytes`));
updater.on('ended', ({ outcome }) => console.log(outcome));
const client = device.Client.fromConnectionString(connection, transports.Mqtt);
await client.open();
await attach(client, updater);
console.log('attached');
process.once('SIGTERM', async () => {
  await updater.close();
  await client.close();
});
