'use strict';

const native = require('./native.js');
const { wrongOption } = require('./errors.js');
const { translate } = require('./options.js');

function guard(stateDir) {
  if (typeof stateDir !== 'string') throw wrongOption(`stateDir is a ${typeof stateDir}; it must be a string`);
  if (stateDir === '') throw wrongOption('stateDir is empty');
  try {
    return native.guard(stateDir);
  } catch (error) {
    throw translate(error);
  }
}

module.exports = { guard };
