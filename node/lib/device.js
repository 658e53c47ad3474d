'use strict';

const { EventEmitter } = require('node:events');
const { Updater, dispose } = require('./updater.js');
const { wrongOption } = require('./errors.js');
const { texts } = require('./options.js');

class Device extends EventEmitter {
  #updater;

  constructor(updater, options = {}) {
    super();
    if (!(updater instanceof Updater)) throw wrongOption('a Device is made with an Updater');
    const { connectionString, ca } = texts(options, ['connectionString', 'ca']);
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
