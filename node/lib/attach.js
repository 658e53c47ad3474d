'use strict';
// Between an updater and a client of azure-iot-device.

const { Updater, closed } = require('./updater.js');

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
  const missing = ['open', 'onDeviceMethod', 'getTwin'].find((name) => typeof client?.[name] !== 'function');
  if (missing) throw new TypeError(`client is no Client of azure-iot-device: it has no ${missing}`);
  if (!(updater instanceof Updater)) throw new TypeError('updater is no Updater');
  Updater.checkOpen(updater);
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

/** So long, in milliseconds, the SDK has to bring an answer of the hub's. It waits for ever for one that was lost with its line. */
const ANSWER_TIME = 60_000;

/** The SDK's own names for a line that broke are repeated by it; this one of its MQTT library's is not. It connects anew all the same. */
const lineBroke = (error) => error.message === 'Connection closed';

/** Says when it has a new token, for which the SDK connects anew and tells nobody. `undefined` where there are no tokens. */
const tokens = (client) => client._transport?._authenticationProvider;

class Link {
  #client;
  #updater;
  #slot;
  #twin;
  #detached = false;
  /** The SDK has given up to ask for changes of the desired properties. */
  #deaf = false;
  /** How many there were. What was asked for over one is not waited for over the next. */
  #connection = 0;
  /** One request after the other: the SDK may still try to send a report, which must not come after a newer one. */
  #last = Promise.resolve();
  #giveUp = () => {};

  constructor(client, updater, slot) {
    this.#client = client;
    this.#updater = updater;
    this.#slot = slot;
  }

  async start() {
    let again;
    let stop;
    const twin = new Promise((resolve, reject) => {
      again = () =>
        this.#client.getTwin((error, twin) => {
          if (!error) resolve(twin);
          else if (!lineBroke(error)) reject(error);
        });
      stop = () => reject(closed());
    });
    this.#updater.once('close', stop);
    try {
      // Says why it cannot; a method's handler would throw it where nobody catches it.
      await Promise.race([this.#client.open(), twin]);
      for (const name of this.#updater.methods) {
        if (this.#slot.methods.has(name)) continue;
        this.#client.onDeviceMethod(name, (request, response) => method(this.#slot, request, response));
        this.#slot.methods.add(name);
      }
      // Read again over each new line: an answer that is lost with its line the SDK never brings. Not before: where two wait for the
      // client's first SUBSCRIBE and it breaks, the SDK sends no other.
      this.#client.on('connect', again);
      tokens(this.#client)?.on?.('newTokenAvailable', again);
      again();
      this.#twin = await twin;
    } finally {
      this.#client.removeListener('connect', again);
      tokens(this.#client)?.removeListener?.('newTokenAvailable', again);
      this.#updater.removeListener('close', stop);
    }
    if (this.#detached) return;
    this.#twin.on('error', this.#twinFailed);
    this.#twin.on('properties.desired', this.#desired);
    this.#client.on('connect', this.#connected);
    this.#client.on('disconnect', this.#disconnected);
    tokens(this.#client)?.on?.('newTokenAvailable', this.#connected);
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
    this.#twin?.removeListener('error', this.#twinFailed);
    this.#client.removeListener('connect', this.#connected);
    this.#client.removeListener('disconnect', this.#disconnected);
    tokens(this.#client)?.removeListener?.('newTokenAvailable', this.#connected);
    this.#updater.removeListener('report', this.#report);
    this.#updater.removeListener('readTwin', this.#readTwin);
    this.#updater.removeListener('close', this.detach);
    this.#giveUp();
    this.#updater.connected(false);
  };

  async method(request, response) {
    const answer = await this.#updater.handleMethod(request.methodName, request.payload);
    send(response, answer ?? { status: 404, payload: `There is no method "${request.methodName}".` });
  }

  #connected = () => {
    // The SDK does not say when the line broke, only that there is another one.
    this.#disconnected();
    if (this.#deaf) {
      this.#deaf = false;
      this.#twin.removeListener('properties.desired', this.#desired).on('properties.desired', this.#desired);
    }
    this.#updater.connected(true);
  };

  #disconnected = () => {
    this.#connection++;
    this.#giveUp();
    this.#updater.connected(false);
  };

  #twinFailed = () => {
    this.#deaf = true;
    this.#disconnected();
  };

  #desired = (patch) => {
    // After a read the SDK hands its whole document over as if it had changed.
    if (patch !== this.#twin.properties.desired) this.#updater.handleTwin(patch, false);
  };

  #readTwin = () =>
    this.#ask(
      (done) => this.#client.getTwin(done),
      (error) => {
        // The updater asks again after a while.
        if (error) return this.#updater.twinFailed();
        const { desired, reported } = this.#twin.properties;
        return this.#updater.handleTwin({ desired, reported });
      },
    );

  #report = ({ id, patch }) =>
    this.#ask(
      (done) => this.#twin.properties.reported.update(patch, done),
      (error) => this.#updater.reportDone(id, statusOf(error)),
      // Sent again by the SDK over the new line, it may have come after a newer one: what the hub holds now must be read.
      (error) => error || this.#connected(),
    );

  /** Asks the hub for something, and takes its answer; `late` one that comes when the line it was asked over is gone. */
  #ask(ask, take, late = () => {}) {
    const connection = this.#connection;
    this.#last = this.#last.then(
      () =>
        new Promise((resolve) => {
          if (this.#detached || connection !== this.#connection) return resolve();
          const time = setTimeout(this.#connected, ANSWER_TIME);
          time.unref?.();
          this.#giveUp = () => resolve(clearTimeout(time));
          const done = (error) => {
            if (this.#detached) return;
            if (connection !== this.#connection) return late(error);
            this.#giveUp();
            take(error);
          };
          try {
            ask(done);
          } catch (error) {
            done(error);
          }
        }),
    );
  }
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
