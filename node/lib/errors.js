'use strict';

/** What failed. `code` is one of `codes`; `cause` what an installer of the application's own threw. */
class TwinflashError extends Error {
  constructor(message, code, cause) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}
// Not shown as a member of each error.
Object.defineProperty(TwinflashError.prototype, 'name', { value: 'TwinflashError', writable: true, configurable: true });

/** A wrong option. */
function wrongOption(message, cause) {
  const error = new TypeError(message, cause === undefined ? undefined : { cause });
  error.code = 'invalid-config';
  return error;
}

/** The error of a promise that was given up by its AbortSignal, as Node's own functions have it. */
function aborted(signal) {
  const error = new Error('The operation was aborted', { cause: signal.reason });
  error.name = 'AbortError';
  error.code = 'ABORT_ERR';
  return error;
}

/** The error of a promise whose time is over. */
function timedOut(what, seconds) {
  const error = new Error(`${what} within ${seconds} s`);
  error.name = 'TimeoutError';
  error.code = 'ETIMEDOUT';
  return error;
}

/** What Node's file functions fail with, and what that is in an update. */
const SYSTEM = {
  ENOSPC: 'no-space',
  EDQUOT: 'no-space',
  EACCES: 'no-permission',
  EPERM: 'no-permission',
  EROFS: 'no-permission',
  EIO: 'storage',
  ENOENT: 'storage',
};

/** The code an error of the application's is reported with. */
function codeOf(error) {
  const code = error?.code;
  return typeof code === 'string' ? SYSTEM[code] ?? code : 'install-failed';
}

module.exports = { TwinflashError, wrongOption, aborted, timedOut, codeOf };
