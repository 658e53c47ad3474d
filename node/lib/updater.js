'use strict';

const { EventEmitter } = require('node:events');
const { NativeUpdater } = require('./native.js');
const { TwinflashError, wrongOption, aborted, timedOut, codeOf } = require('./errors.js');
const { take, write, describe, texts, translate } = require('./options.js');

/** So many events an iterator may be behind; then it misses the oldest. */
const MOST_EVENTS = 1000;
/** A timer's longest time. */
const LONGEST = 2 ** 31 - 1;
/** Bytes stand as they are, everything else as JSON. */
const json = (value) => (value instanceof Uint8Array ? Buffer.from(value).toString() : JSON.stringify(value) ?? 'null');

class Updater extends EventEmitter {
  #native;
  #installer;
  #onRestart;
  /** What an installer of the application's own threw last, to be the cause of what comes of it. */
  #thrown;
  #answers = new Map();
  #waiting = new Set();
  #iterators = new Set();
  /** What is to be sent to the hub, until somebody takes it. */
  #unsent = [];
  #closing;
  #closed;
  /** Why the process is kept alive, and the timer that does so. */
  #reasons = new Set();
  #alive;
  #device;

  constructor(options) {
    super();
    const taken = take(options);
    const inspected = taken.installer?.inspect();
    if (typeof inspected?.then === 'function') {
      inspected.then(undefined, () => {});
      throw wrongOption('install.inspect answered with a Promise, which a constructor cannot wait for: use await Updater.open(options)');
    }
    this.#start(taken, inspected);
  }

  static async open(options) {
    const { installer } = take(options);
    if (!installer) return new this(options);
    const inspected = await installer.inspect();
    let first = true;
    const once = new Proxy(installer, {
      get(target, name) {
        if (name === 'inspect' && first) return () => ((first = false), inspected);
        const value = target[name];
        // Private members are the object's own, not the proxy's.
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    return new this({ ...options, install: once });
  }

  #start({ config, installer, onRestart }, inspected) {
    this.#installer = installer;
    this.#onRestart = onRestart;
    try {
      const own = installer ? describe(installer, inspected) : undefined;
      const deliver = (word, text, bytes) => this.#deliver(word, JSON.parse(text), bytes);
      this.#native = new NativeUpdater(config, own, onRestart !== undefined, deliver);
    } catch (error) {
      throw error instanceof TypeError ? error : translate(error);
    }
    if (this.status().phase) this.#hold('update');
    this.on('newListener', (name) => {
      if ((name === 'report' || name === 'readTwin') && this.#unsent.length) queueMicrotask(() => this.#flush());
    });
  }

  get methods() {
    return this.#native.methods();
  }

  async handleMethod(name, payload) {
    if (typeof name !== 'string') throw new TypeError(`a method's name is a string, not a ${typeof name}`);
    const handled = this.#native.handleMethod(name, json(payload));
    if (!handled) return null;
    if (handled.number === undefined) return answer(handled.status, handled.payload);
    return answer(...(await this.#later(handled.number, [503, '"The device is being stopped."'])));
  }

  handleTwin(twin, complete = true) {
    this.#native.handleTwin(Boolean(complete), json(twin));
  }

  twinFailed() {
    this.#native.twinFailed();
  }

  connected(connected = true) {
    this.#native.connected(Boolean(connected));
  }

  reportDone(id, status) {
    if (!Number.isInteger(status) || status < 0 || status > 999) {
      throw new TypeError(`status is ${status}; a hub's lies between 200 and 599, and 0 is a lost report`);
    }
    if (!Number.isSafeInteger(id) || id < 0) throw new TypeError(`id is ${id}; it is the number of a report`);
    this.#native.reportDone(id, status);
  }

  status() {
    const status = JSON.parse(this.#native.status());
    if (status.outcome) status.outcome = this.#outcome(status.outcome);
    if (status.retry) status.retry.error = this.#error(status.retry.error);
    return status;
  }

  confirm() {
    this.#native.confirm();
  }

  cancel() {
    return translated(() => this.#native.cancel());
  }

  approve() {
    return translated(() => this.#native.approve());
  }

  defer(seconds) {
    if (!Number.isFinite(seconds) || seconds < 0) throw new TypeError(`seconds is ${seconds}; it is a time in seconds`);
    return translated(() => this.#native.defer(seconds));
  }

  installFile(path, options = {}) {
    if (typeof path !== 'string') throw new TypeError(`path is a ${typeof path}; it must be a string`);
    const { version, check, manifest } = texts(options, ['version', 'check', 'manifest']);
    translated(() => this.#native.installFile(path, version, check, manifest));
  }

  pause() {
    this.#native.pause();
  }

  resume() {
    this.#native.resume();
  }

  async flush({ timeout = 60 } = {}) {
    checkTimeout(timeout);
    if (this.#closing) throw closed();
    const number = this.#native.flush(timeout);
    const [failure] = await this.#later(number, [{ code: 'state', message: 'the updater was closed' }]);
    if (failure) throw this.#error(failure);
  }

  async done({ signal, timeout } = {}) {
    if (timeout !== undefined) checkTimeout(timeout);
    if (signal !== undefined && typeof signal?.addEventListener !== 'function') throw new TypeError('signal is no AbortSignal');
    if (signal?.aborted) throw aborted(signal);
    if (this.#closing) throw closed();
    this.#native.wait();
    return new Promise((resolve, reject) => {
      const waiting = { settle };
      const time = timeout === undefined ? LONGEST : Math.min(timeout * 1000, LONGEST);
      const timer = setTimeout(() => {
        if (timeout === undefined) return;
        // Ended, but nothing could be saved, or the hub told.
        const { phase, outcome } = this.status();
        if (outcome && !phase) settle(resolve, outcome);
        else settle(reject, timedOut('No update has ended', timeout));
      }, time);
      const abort = () => settle(reject, aborted(signal));
      function settle(how, value) {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
        waiting.leave();
        how(value);
      }
      waiting.leave = () => this.#waiting.delete(waiting);
      waiting.end = (outcome) => (outcome ? settle(resolve, outcome) : settle(reject, closed()));
      signal?.addEventListener('abort', abort);
      this.#waiting.add(waiting);
    });
  }

  events() {
    const queue = [];
    let wake;
    const iterator = {
      put: (event) => {
        if (queue.length >= MOST_EVENTS) queue.shift();
        queue.push(event);
        wake?.();
      },
      end: () => wake?.(),
      next: async () => {
        while (!queue.length && this.#iterators.has(iterator)) await new Promise((resolve) => (wake = resolve));
        return queue.length ? { done: false, value: queue.shift() } : { done: true, value: undefined };
      },
      return: async () => {
        this.#iterators.delete(iterator);
        wake?.();
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]: () => iterator,
    };
    if (!this.#closed) this.#iterators.add(iterator);
    return iterator;
  }

  close() {
    this.#closing ??= new Promise((resolve, reject) => {
      this.#hold('closing');
      this.#closed = resolve;
      try {
        this.#native.close();
      } catch (error) {
        reject(translate(error));
      }
    });
    return this.#closing;
  }

  /** For attach: what is closed serves nobody. */
  static checkOpen(updater) {
    if (updater.#closing) throw closed();
  }

  /** For Device: connects with the library's own connection, whose events `device` gets. */
  static connect(updater, { connectionString, ...more }, device) {
    translated(() => updater.#native.connect(connectionString, write({ stateDir: '', ...more })));
    updater.#device = device;
    updater.#hold('device');
  }

  #deliver(word, value, bytes) {
    switch (word) {
      case 'event': {
        const [type, what] = value;
        return this.#tell(type, this.#translated(type, what));
      }
      case 'report':
        this.#unsent.push(['report', { id: value[0], patch: JSON.parse(value[1]) }]);
        return this.#flush();
      case 'readTwin':
        this.#unsent.push(['readTwin', undefined]);
        return this.#flush();
      case 'device': {
        const [type, what] = value;
        return this.#device?.emit(type, ...(what ? [this.#error(what)] : []));
      }
      case 'answer': {
        const [number, ...rest] = value;
        const later = this.#answers.get(number);
        this.#answers.delete(number);
        if (!this.#answers.size) this.#release('answers');
        return later?.resolve(rest);
      }
      case 'call':
        return void this.#call(value, bytes);
      case 'done':
        for (const waiting of [...this.#waiting]) waiting.end(value && this.#outcome(value));
        return undefined;
      case 'exit':
        return process.exit(0);
      case 'closed':
        return this.#ended();
    }
    return undefined;
  }

  /** Calls a function of the application for a thread that waits for what comes of it. */
  async #call([number, name, ...args], bytes) {
    try {
      const result = name === 'restart' ? await this.#onRestart(...args) : await this.#installer[name](...args, ...(bytes ? [bytes] : []));
      this.#native.answer(number, json(result));
    } catch (error) {
      this.#thrown = error;
      this.#native.answer(number, String(error?.message ?? error), codeOf(error));
    }
  }

  /** What `deliver("answer", [number, …])` brings; `closed` where the updater is closed first. */
  #later(number, closed) {
    this.#hold('answers');
    return new Promise((resolve) => this.#answers.set(number, { resolve, closed }));
  }

  #translated(type, what) {
    switch (type) {
      case 'ended':
        return this.#outcome(what);
      case 'refused':
        return this.#error(what);
      case 'retry':
        return { ...what, error: this.#error(what.error) };
      default:
        return what;
    }
  }

  #tell(type, value) {
    if (type === 'accepted') this.#hold('update');
    if (type === 'ended') this.#release('update');
    for (const iterator of this.#iterators) iterator.put({ type, value });
    this.emit(type, value);
  }

  #flush() {
    while (this.#unsent.length && this.listenerCount(this.#unsent[0][0])) {
      const [type, value] = this.#unsent.shift();
      this.#tell(type, value);
    }
  }

  #ended() {
    this.#native.end();
    for (const { resolve, closed } of this.#answers.values()) resolve(closed);
    this.#answers.clear();
    for (const waiting of [...this.#waiting]) waiting.end(null);
    const iterators = [...this.#iterators];
    this.#iterators.clear();
    for (const iterator of iterators) iterator.end();
    this.#reasons.clear();
    clearInterval(this.#alive);
    this.#closed();
    this.emit('close');
    this.#device?.emit('close');
  }

  #error({ code, message }) {
    const thrown = this.#thrown;
    // As a message has it: in one line, and not too long.
    const text = thrown && String(thrown.message ?? thrown).replace(/\p{Cc}/gu, ' ').slice(0, 100);
    return new TwinflashError(message, code, text && message.includes(text) ? thrown : undefined);
  }

  #outcome(outcome) {
    return { ...outcome, error: outcome.error && this.#error(outcome.error) };
  }

  /** Threads do not keep a process of Node's alive; this does, while there is a reason to. */
  #hold(reason) {
    if (this.#closed && reason !== 'closing') return;
    this.#reasons.add(reason);
    this.#alive ??= setInterval(() => {}, LONGEST);
  }

  #release(reason) {
    this.#reasons.delete(reason);
    if (this.#reasons.size) return;
    clearInterval(this.#alive);
    this.#alive = undefined;
  }
}

// Node 18.0 has no such symbol; where there is one, `await using` finds it.
const dispose = Symbol.asyncDispose ?? Symbol.for('nodejs.asyncDispose');
Object.defineProperty(Updater.prototype, dispose, {
  value() {
    return this.close();
  },
});

/** Calls the native half, whose errors are made ours. */
function translated(call) {
  try {
    return call();
  } catch (error) {
    throw translate(error);
  }
}

function checkTimeout(timeout) {
  if (!(typeof timeout === 'number' && timeout >= 0)) throw new TypeError(`timeout is ${timeout}; it is a time in seconds`);
}

function answer(status, payload) {
  return { status, payload: JSON.parse(payload) };
}

function closed() {
  return new TwinflashError('the updater was closed', 'state');
}

module.exports = { Updater, closed, dispose };
