'use strict';

const { EventEmitter } = require('node:events');
const { Updater, dispose } = require('./updater.js');
const { wrongOption } = require('./errors.js');

class Device extends EventEmitter {
  #updater;

  constructor(updater, { connectionString, ca } = {}) {
    super();
    if (!(updater instanceof Updater)) throw wrongOption('a Device is made with an Updater');
    for (const [name, value] of Object.entries({ connectionString, ca })) {
      if (value !== undefined && typeof value !== 'string') throw wrongOption(`${name} is a ${typeof value}; it must be a string`);
    }
    this.#updater = updater;
    Updater.connect(updater, connectionString, ca, this);
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
