'use strict';

const { EventEmitter } = require('node:events');
const { Updater, dispose } = require('./updater.js');
const { wrongOption } = require('./errors.js');

class Device extends EventEmitter {
  #updater;

  constructor(updater, { connectionString, ca, clientCertificate, clientKey } = {}) {
    super();
    if (!(updater instanceof Updater)) throw wrongOption('a Device is made with an Updater');
    const options = { connectionString, ca, clientCertificate, clientKey };
    for (const [name, value] of Object.entries(options)) {
      if (value !== undefined && typeof value !== 'string') throw wrongOption(`${name} is a ${typeof value}; it must be a string`);
    }
    this.#updater = updater;
    Updater.connect(updater, options, this);
  }

  get updater() {
    return this.#updater;
  }

  close() {
    return this.#updater.close();
  }

  [dispose]() {
    return this.close();
  }
}

module.exports = { Device };
