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
    const given = texts(options, ['connectionString', 'ca', 'clientCertificate', 'clientKey']);
    this.#updater = updater;
    Updater.connect(updater, given, this);
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
