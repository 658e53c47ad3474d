'use strict';
// The options object becomes the configuration that all languages share: its keys in snake_case, as JSON.

const { fileURLToPath } = require('node:url');
const { TwinflashError, wrongOption } = require('./errors.js');

const STEPS = ['inspect', 'begin', 'write', 'sync', 'finish', 'activate', 'confirm', 'rollback', 'abort'];

const snake = (key) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const camel = (key) => key.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());

/** Objects whose keys are not ours. */
const THEIRS = new Set(['contract', 'install.slots', 'http.headers']);

/** Objects of options. */
const TABLES = new Set(['install', 'policy', 'http', 'trust']);

/** Everything that is an object of options: its keys are ours. */
function convert(value, path) {
  if (typeof value === 'bigint' || typeof value === 'function' || typeof value === 'symbol') {
    throw wrongOption(`${path} is a ${typeof value}, which it cannot be`);
  }
  if (typeof value === 'number' && !Number.isFinite(value)) {
    throw wrongOption(`${path} is ${value}; it must be a finite number`);
  }
  if (TABLES.has(path) && (value === null || typeof value !== 'object' || Array.isArray(value))) {
    throw wrongOption(`${path} is ${kind(value)}; it must be an object`);
  }
  if (Array.isArray(value)) return value.map((item, index) => convert(item, `${path}[${index}]`));
  if (value === null || typeof value !== 'object' || THEIRS.has(path)) return value;
  if (value instanceof URL) {
    if (value.protocol === 'file:') return fileURLToPath(value);
    if (path === 'http.proxy') return value.href;
    throw wrongOption(`${path} is a URL with ${value.protocol}, which it cannot be`);
  }
  // What is in a Map would be passed over.
  if (Object.prototype.toString.call(value) !== '[object Object]') throw wrongOption(`${path} is ${kind(value)}, which it cannot be`);
  const converted = {};
  for (const [key, item] of Object.entries(value)) {
    const place = path ? `${path}.${key}` : key;
    if (item === undefined) continue;
    if (key.includes('_')) throw wrongOption(`${place} is no option; it is called ${camel(key)} here`);
    converted[snake(key)] = convert(item, place);
  }
  return converted;
}

/** What a value is, where it is not what it should be. */
function kind(value) {
  if (value === null || value === undefined) return `${value}`;
  if (Array.isArray(value)) return 'an array';
  return `a ${typeof value === 'object' ? value.constructor?.name : typeof value}`;
}

/** Whether `install` is an installer of the application's own. */
const isOwn = (install) => STEPS.some((step) => typeof install?.[step] === 'function');

/** Takes the options apart: the configuration as JSON, the application's installer, its restart function. */
function take(options) {
  if (options === null || typeof options !== 'object') {
    throw wrongOption(`the options are ${kind(options)}; they must be an object`);
  }
  const { install, onRestart, ...rest } = options;
  if (onRestart !== undefined && typeof onRestart !== 'function') throw wrongOption('onRestart must be a function');
  if (install === undefined || install === null) {
    throw wrongOption('install is missing: it says what is installed (file, slots, command, or an installer of your own)');
  }
  if (typeof install !== 'object') throw wrongOption(`install is a ${typeof install}; it must be an object`);
  if (rest.source !== undefined) throw wrongOption('source is no option: images are always fetched here');
  if (rest.stateDir === undefined) throw wrongOption('stateDir is missing: it is where the updater remembers what it was doing');
  if (rest.stateDir === '') throw wrongOption('stateDir is empty');
  const own = isOwn(install);
  if (own) {
    const missing = STEPS.filter((step) => typeof install[step] !== 'function');
    if (missing.length) throw wrongOption(`install.${missing[0]} must be a function`);
  }
  return { config: write(own ? rest : { ...rest, install }), installer: own ? install : null, onRestart };
}

function write(options) {
  try {
    return JSON.stringify(convert(options, ''));
  } catch (error) {
    // One that refers to itself, or has a toJSON that throws.
    throw error.code ? error : wrongOption(`the options cannot be written as JSON: ${error.message}`, error);
  }
}

/** What the native part is told of an installer, whose `inspect` has answered. */
function describe(installer, inspected) {
  if (typeof inspected !== 'string') {
    throw wrongOption(`install.inspect must answer old, new, partial or unknown; it answered ${inspected}`);
  }
  const { restart } = installer;
  return {
    inspected,
    restart: typeof restart === 'string' ? restart : undefined,
    command: Array.isArray(restart) ? restart : undefined,
    readsBack: typeof installer.readBack === 'function',
    holds: typeof installer.holds === 'function',
  };
}

/** Keys as the options have them, where a message of the native part names them. */
function inOurWords(message) {
  const keys = /(?<![\w/-])([a-z]+(?:_[a-z]+)+)(?![\w/-])/g;
  const place = /^configuration, at ([^:]*)/;
  return message
    .replace(/ at line \d+ column \d+$/, '')
    .replace(place, (_, path) => `the option ${camel(path)}`)
    .replace(/`([a-z_.]+)`/g, (_, key) => `\`${camel(key)}\``)
    .replace(keys, (key) => (KEYS.has(key) ? camel(key) : key));
}

/** The keys of more than one word. */
const KEYS = new Set(
  `connection_string state_dir current_version version_from install_time command_time connect_timeout user_agent
   allow_http max_size require_check retry_first retry_longest retry_time retry_sizes checkpoint_interval checkpoint_bytes
   stall_time stall_bytes max_redirects progress_step progress_interval answer_wait apply_attempts confirm_attempts
   consent_by consent_command consent_interval ready_interval download_windows apply_windows start_delay dry_run
   client_certificate client_key confirm_time hardware_revision decryption_key require_manifest`.split(/\s+/),
);

/** The options of a call, of which each is a text. */
function texts(options, names) {
  if (options === null || typeof options !== 'object') throw wrongOption(`the options are ${kind(options)}; they must be an object`);
  for (const [name, value] of Object.entries(options)) {
    if (!names.includes(name)) throw wrongOption(`${name} is no option; there are ${names.join(', ')}`);
    if (value !== undefined && typeof value !== 'string') throw wrongOption(`${name} is a ${typeof value}; it must be a string`);
  }
  return options;
}

/** What the native part threw, as what the application is to get. */
function translate(error) {
  if (error.code === 'invalid-config') return wrongOption(inOurWords(error.message));
  return new TwinflashError(error.message, error.code);
}

module.exports = { take, write, describe, texts, translate, KEYS };
