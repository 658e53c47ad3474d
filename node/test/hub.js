// The hub the tests were started with: its devices, and its service SDK.

import { readFileSync } from 'node:fs';
import service from 'azure-iothub';

export const ready = JSON.parse(process.env.TWINFLASH_READY);
export const ca = readFileSync(ready.ca, 'utf8');

/** For tests that need the service SDK, or MQTT over WebSockets. */
export const withSdk = { skip: ready.httpsPort === 443 ? false : 'port 443 may not be used here, and the SDK knows no other' };

export const registry = () => service.Registry.fromConnectionString(ready.serviceConnectionString);

export const reported = async (device) => (await registry().getTwin(device)).responseBody.properties.reported;

/** Calls a direct method, and waits up to twice so many seconds. */
export async function call(device, methodName, payload, seconds = 30) {
  const client = service.Client.fromConnectionString(ready.serviceConnectionString);
  const times = { connectTimeoutInSeconds: seconds, responseTimeoutInSeconds: seconds };
  const { result } = await client.invokeDeviceMethod(device, { methodName, payload, ...times });
  return { status: result.status, payload: result.payload };
}

/** The fields of a device's connection string. */
export const fields = (device) =>
  Object.fromEntries(ready.devices[device].split(';').map((field) => [field.slice(0, field.indexOf('=')), field.slice(field.indexOf('=') + 1)]));
