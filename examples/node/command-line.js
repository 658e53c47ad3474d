// What the back ends have in common: their command line, and how they say what went wrong.

const { basename } = require('node:path');

/** Positional arguments (at least `needed`) and options of the form `--name`; the service's connection string. */
function commandLine(needed, usage) {
  const words = process.argv.slice(2);
  let service = process.env.TWINFLASH_SERVICE;
  const option = words.indexOf('--service');
  if (option >= 0) [, service] = words.splice(option, 2);
  if (words.length < needed || !service) {
    const program = `node ${basename(process.argv[1])} ${usage}`;
    console.error(`Usage: ${program}, with the service's connection string in TWINFLASH_SERVICE or after --service`);
    process.exit(2);
  }
  return { arguments: words, service };
}

/** The SDK's errors say little ("Not found"); what the hub said is beside it. */
const why = (error) => [error.message, error.responseBody].filter(Boolean).join(': ');

module.exports = { commandLine, why };
