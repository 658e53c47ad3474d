'use strict';

const { codes, version } = require('./lib/native.js');
const { TwinflashError } = require('./lib/errors.js');
const { Updater } = require('./lib/updater.js');
const { Device } = require('./lib/device.js');
const { attach } = require('./lib/attach.js');
const { guard } = require('./lib/guard.js');

module.exports = { Updater, Device, attach, guard, TwinflashError, codes: Object.freeze(codes()), version: version() };
