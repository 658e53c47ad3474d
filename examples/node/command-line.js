// What the back ends have in common: their command line.

/** Positional arguments (at least `needed`) and options of the form `--name`; the service's connection string. */
module.exports = function commandLine(needed, usage) {
  const words = process.argv.slice(2);
  let service = process.env.TWINFLASH_SERVICE;
  const option = words.indexOf('--service');
  if (option >= 0) [, service] = words.splice(option, 2);
  if (words.length < needed || !service) {
    console.error(`Usage: ${usage}, with the service's connection string in TWINFLASH_SERVICE or after --service`);
    process.exit(2);
  }
  return { arguments: words, service };
};
