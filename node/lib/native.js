'use strict';
// Finds the native part: in the package for this platform, or beside this package where it was built here.

const { join } = require('node:path');

/** Linux has two C libraries; npm has installed what is for the one that is here. */
const { platform: system, arch } = process;
const platforms = system === 'linux' ? [`linux-${arch}-gnu`, `linux-${arch}-musl`] : [`${system}-${arch}`];

function load() {
  for (const name of platforms) {
    for (const place of [`twinflash-${name}`, join(__dirname, '..', `twinflash.${name}.node`)]) {
      try {
        return require(place);
      } catch (cause) {
        if (cause.code === 'MODULE_NOT_FOUND') continue;
        throw new Error(`the native part of twinflash for ${name} cannot be loaded: ${cause.message}`, { cause });
      }
    }
  }
  const [name] = platforms;
  throw new Error(`twinflash has no native part for ${name}: the package twinflash-${name} is not installed (npm leaves it out with --omit=optional)`);
}

module.exports = load();
