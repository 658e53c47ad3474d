'use strict';
// Finds the native part: beside this package where it was built here, else in the package for this platform.

const { existsSync } = require('node:fs');
const { join } = require('node:path');

/** Linux has two C libraries; a program of the one cannot load a library made for the other. */
function platform() {
  const { platform: system, arch } = process;
  if (system !== 'linux') return `${system}-${arch}`;
  const glibc = process.report.getReport().header.glibcVersionRuntime;
  return `linux-${arch}-${glibc ? 'gnu' : 'musl'}`;
}

function load() {
  const name = platform();
  const here = join(__dirname, '..', `twinflash.${name}.node`);
  if (existsSync(here)) return require(here);
  try {
    return require(`twinflash-${name}`);
  } catch (cause) {
    const message =
      cause.code === 'MODULE_NOT_FOUND'
        ? `twinflash has no native part for ${name}: the package twinflash-${name} is not installed (npm leaves it out with --omit=optional)`
        : `the native part of twinflash for ${name} cannot be loaded: ${cause.message}`;
    throw new Error(message, { cause });
  }
}

module.exports = load();
