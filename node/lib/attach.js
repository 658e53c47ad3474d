'use strict';
// Between an updater and a client of azure-iot-device.

const { Updater } = require('./updater.js');

/** The SDK has no way to take a method's handler back: ours stay, and ask here whose they are. */
const attached = new WeakMap();

/** The hub's status behind an error of the SDK's; 0 where none came, so that the report is sent again. */
const STATUS = {
  ArgumentError: 400,
  FormatError: 400,
  UnauthorizedError: 401,
  IotHubQuotaExceededError: 403,
  DeviceNotFoundError: 404,
  MessageTooLargeError: 413,
  ThrottlingError: 429,
  InternalServerError: 500,
  ServiceUnavailableError: 503,
};
const statusOf = (error) => (error ? STATUS[error.constructor?.name] ?? 0 : 204);

async function attach(client, updater) {
  if (typeof client?.onDeviceMethod !== 'function' || typeof client.getTwin !== 'function') {
    throw new TypeError('client is no Client of azure-iot-device: it has no onDeviceMethod or no getTwin');
  }
  if (!(updater instanceof Updater)) throw new TypeError('updater is no Updater');
  const before = attached.get(client) ?? { methods: new Set(), link: null };
  if (before.link) throw new Error('this client has an updater already: detach that one first');
  attached.set(client, before);
  const link = new Link(client, updater, before);
  before.link = link;
  try {
    await link.start();
  } catch (error) {
    link.detach();
    throw error;
  }
  return { detach: () => link.detach() };
}

class Link {
  #client;
  #updater;
  #slot;
  #twin;
  #detached = false;
  /** One after the other: a report the SDK still tries to send must not come after a newer one. */
  #last = Promise.resolve();

  constructor(client, updater, slot) {
    this.#client = client;
    this.#updater = updater;
    this.#slot = slot;
  }

  async start() {
    for (const name of this.#updater.methods) {
      if (this.#slot.methods.has(name)) continue;
      this.#client.onDeviceMethod(name, (request, response) => method(this.#slot, request, response));
      this.#slot.methods.add(name);
    }
    await this.#read();
    if (this.#detached) return;
    this.#twin.on('properties.desired', this.#desired);
    this.#client.on('connect', this.#connected);
    this.#client.on('disconnect', this.#disconnected);
    this.#updater.on('report', this.#report);
    this.#updater.on('readTwin', this.#readTwin);
    this.#updater.once('close', this.detach);
    this.#updater.connected(true);
  }

  detach = () => {
    if (this.#detached) return;
    this.#detached = true;
    this.#slot.link = null;
    this.#twin?.removeListener('properties.desired', this.#desired);
    this.#client.removeListener('connect', this.#connected);
    this.#client.removeListener('disconnect', this.#disconnected);
    this.#updater.removeListener('report', this.#report);
    this.#updater.removeListener('readTwin', this.#readTwin);
    this.#updater.removeListener('close', this.detach);
    this.#updater.connected(false);
  };

  async method(request, response) {
    const answer = await this.#updater.handleMethod(request.methodName, request.payload);
    send(response, answer ?? { status: 404, payload: `There is no method "${request.methodName}".` });
  }

  #connected = () => {
    // The SDK does not say when the line broke, only that there is another one.
    this.#updater.connected(false);
    this.#updater.connected(true);
  };

  #disconnected = () => this.#updater.connected(false);

  #desired = (patch) => {
    // After a read the SDK hands its whole document over as if it had changed.
    if (patch !== this.#twin.properties.desired) this.#updater.handleTwin(patch, false);
  };

  #readTwin = () => {
    this.#last = this.#last
      .then(() => this.#detached || this.#read())
      .then(() => this.#detached || this.#updater.handleTwin({ desired: this.#twin.properties.desired, reported: this.#twin.properties.reported }))
      // The updater asks again after a while.
      .catch(() => this.#detached || this.#updater.twinFailed());
  };

  #read() {
    return new Promise((resolve, reject) => {
      this.#client.getTwin((error, twin) => {
        if (error) return reject(error);
        this.#twin = twin;
        return resolve();
      });
    });
  }

  #report = ({ id, patch }) => {
    const update = () =>
      new Promise((resolve) => {
        if (this.#detached) return resolve();
        this.#twin.properties.reported.update(patch, (error) => {
          this.#updater.reportDone(id, statusOf(error));
          resolve();
        });
      });
    this.#last = this.#last.then(update).catch(() => this.#updater.reportDone(id, 0));
  };
}

function method(slot, request, response) {
  if (!slot.link) return send(response, { status: 404, payload: 'There is no updater here any more.' });
  return slot.link.method(request, response).catch((error) => send(response, { status: 500, payload: error.message }));
}

/** An answer that is lost with the line is the back end's to miss. */
function send(response, { status, payload }) {
  response.send(status, payload, () => {});
}

module.exports = { attach };
