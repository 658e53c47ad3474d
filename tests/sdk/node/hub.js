// How the tests reach the hub that run.js started.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import device from 'azure-iot-device';
import service from 'azure-iothub';
import mqtt from 'mqtt';

export const ready = JSON.parse(process.env.TWINFLASH_READY);
export const ca = readFileSync(ready.ca, 'utf8');
/** Why the tests of the service SDK are left out, or false. */
export const leftOut = ready.httpsPort === 443 ? false : 'port 443 may not be used here, and the SDK knows no other';

export const registry = () => service.Registry.fromConnectionString(ready.serviceConnectionString);
export const backEnd = () => service.Client.fromConnectionString(ready.serviceConnectionString);

/** The fields of a device's connection string. */
export function fields(name) {
  return Object.fromEntries(ready.devices[name].split(';').map((field) => [field.slice(0, field.indexOf('=')), field.slice(field.indexOf('=') + 1)]));
}

/** Connects a device, and closes it when the test ends. */
export async function connect(test, name, transport) {
  const client = device.Client.fromConnectionString(ready.devices[name], transport);
  return opened(test, client);
}

/** Opens a client, and closes it when the test ends. */
export async function opened(test, client, options) {
  test.after(() => client.close().catch(() => {}));
  await client.setOptions({ ca, ...options });
  await client.open();
  return client;
}

/** Calls a direct method; returns the device's status and payload. */
export async function call(name, methodName, payload, more) {
  const { result } = await backEnd().invokeDeviceMethod(name, { methodName, payload, ...more });
  return { status: result.status, payload: result.payload };
}

/** Connects with the same id by other means, and goes: the hub drops the first connection. */
export function takeOver(name) {
  const { HostName: host, SharedAccessKey: key } = fields(name);
  const [hostname, port = 8883] = host.split(':');
  const password = device.SharedAccessSignature.create(hostname, name, key, Math.floor(Date.now() / 1000) + 60).toString();
  return new Promise((resolve, reject) => {
    const other = mqtt.connect(`mqtts://${hostname}:${port}`, {
      ca, clientId: name, username: `${hostname}/${name}/?api-version=2021-04-12`, password, clean: false, protocolVersion: 4,
      protocolId: 'MQTT', reconnectPeriod: 0,
    });
    other.once('error', reject);
    other.once('connect', () => other.end(false, {}, resolve));
  });
}

/** Waits until condition() gives something, and returns it. */
export async function eventually(condition, what, seconds = 15) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert.ok(Date.now() < end, `not within ${seconds} s: ${what}`);
    await sleep(50);
  }
}
