/// <reference types="node" />
import { EventEmitter } from 'node:events';

/**
 * Firmware updates for devices on Azure IoT Hub.
 *
 * ```js
 * const { Updater, attach } = require('twinflash');
 * const updater = new Updater({ stateDir: '/var/lib/fw', contract: 'iothub-dm', currentVersion: '1.0.0', install: { file: '/opt/app/app.bin' } });
 * await attach(client, updater);            // a Client of azure-iot-device
 * updater.on('phase', (phase) => console.log(phase));
 * ```
 */

/** This package's version. */
export const version: string;

/** Why something failed. Stable: a name is never used for another thing. */
export type Code =
  /** The request is not of the form its contract asks for. */
  | 'invalid-request'
  /** The URI cannot be parsed, is relative, or has a scheme that is not known. */
  | 'invalid-uri'
  /** The URI is http, and the policy wants https. */
  | 'insecure-uri'
  /** The check value is of no known kind. */
  | 'invalid-check'
  /** The contract or the policy requires a check, and the request has none. */
  | 'check-required'
  /** The version asked for is not one the contract or the policy lets in. */
  | 'version-refused'
  /** An update runs already; or it can no longer be cancelled. */
  | 'busy'
  /** Keys are configured, and nothing signed vouches for the image. */
  | 'manifest-required'
  /** A signed document is not of the form it must have, or does not fit the request. */
  | 'manifest-invalid'
  /** A signed document is not signed by as many trusted keys as must sign. */
  | 'untrusted'
  /** A manifest has expired, or was issued at a time to come. */
  | 'expired'
  /** The image is for another model, manufacturer or hardware revision. */
  | 'incompatible'
  /** A key, or a set of keys, cannot be used. */
  | 'invalid-key'
  /** The server answered with a status that ends the download. */
  | 'http-status'
  /** The server's answer breaks HTTP or what was asked of it. */
  | 'http-protocol'
  /** Too many redirects, or one that leads where it must not. */
  | 'redirect'
  /** The connection could not be made, or broke. */
  | 'network'
  /** TLS failed: an unknown certificate authority, a wrong host name, an expired certificate. */
  | 'tls'
  /** Too few bytes came for too long. */
  | 'stalled'
  /** The image is larger than announced, or than the policy allows. */
  | 'too-large'
  /** The image's size is not the one announced. */
  | 'size-mismatch'
  /** The image's CRC-16 or CRC-32 is not the one announced. */
  | 'crc-mismatch'
  /** The image's SHA-256 is not the one announced. */
  | 'hash-mismatch'
  /** The image cannot be decrypted: it is encrypted for others, was altered, or this device has no key. */
  | 'decryption-failed'
  /** There is not enough free space for the image. */
  | 'no-space'
  /** A file or directory may not be read or written. */
  | 'no-permission'
  /** Reading or writing the image failed in another way. */
  | 'storage'
  /** The installer could not finish or activate the image. */
  | 'install-failed'
  /** The new version did not confirm itself in time, or in the starts it is given. */
  | 'not-confirmed'
  /** The boot loader went back to the old image. */
  | 'boot-failed'
  /** The old image could not be brought back. */
  | 'rollback-failed'
  /** The update was cancelled. */
  | 'cancelled'
  /** A newer request took over. */
  | 'superseded'
  /** The policy wants a dry run: the image is good, and is not installed. */
  | 'dry-run'
  /** The state directory or the journal in it cannot be used; or the updater is closed. */
  | 'state'
  /** Another process, or another updater of this one, holds the state directory. */
  | 'locked'
  /** The configuration is wrong, or what it names cannot be read. */
  | 'invalid-config';

/** Every code there is. */
export const codes: readonly Code[];

/** What failed. A wrong option is a `TypeError` instead, with the code `invalid-config`. */
export class TwinflashError extends Error {
  /** For installers of the application's own, to fail with one of the codes. */
  constructor(message: string, code: Code, cause?: unknown);
  /** For programs; `message` is for people: what failed, with which value, and what to do. It holds no secret. */
  readonly code: Code;
  /** What an installer of the application's own threw, where that is why. */
  readonly cause?: unknown;
}

/** Where a running update stands. */
export type Phase =
  /** Accepted; the policy has not let it start yet. */
  | 'waiting'
  /** The image is being fetched, checked as it streams, and written. */
  | 'downloading'
  /** Every byte is there; the checks are compared. */
  | 'verifying'
  /** The image is being installed and activated. From here on it cannot be cancelled. */
  | 'applying'
  /** Activated; it runs after a restart. */
  | 'rebooting'
  /** It runs, and has to prove itself. */
  | 'confirming'
  /** It failed after it was activated; the old image is being brought back. */
  | 'rolling-back';

/** How an update ended. However it did, the next one can start. */
export interface Outcome {
  /** `completed`: the new image runs. `up-to-date`: it ran already. Otherwise the old image is what it was. */
  readonly outcome: 'completed' | 'up-to-date' | 'failed' | 'rolled-back' | 'cancelled' | 'superseded';
  /** The device runs what was asked for. */
  readonly success: boolean;
  /** Where it failed or was cancelled. */
  readonly phase: Phase | null;
  /** Why, where it failed or was rolled back. */
  readonly error: TwinflashError | null;
}

/** Where everything stands. */
export interface Status {
  /** The running update's phase; `null` when none runs. */
  readonly phase: Phase | null;
  /** The version the running or last update asked for. */
  readonly version: string | null;
  /** Bytes of the image that are there. */
  readonly bytes: number;
  /** The image's size in bytes, if it is known. */
  readonly size: number | null;
  /** How the last update ended; `null` while one runs, and before the first. */
  readonly outcome: Outcome | null;
  /** The version that runs now. */
  readonly runningVersion: string | null;
  /** The download is paused. */
  readonly paused: boolean;
  /** The last attempt at the download failed, and no byte has come since; `after`: seconds until the next one. */
  readonly retry: { readonly error: TwinflashError; readonly attempts: number; readonly after: number | null } | null;
  /** What the running update waits for, besides its next attempt. */
  readonly waiting: Waiting | null;
}

/** The answer to a direct method. */
export interface Answer {
  /** For the back end, such as 200. */
  readonly status: number;
  /** What JSON can be. */
  readonly payload: any;
}

/** A patch of the reported properties to be sent to the hub; its result goes to `reportDone`. */
export interface Report {
  readonly id: number;
  readonly patch: Record<string, any>;
}

/** What an update waits for. */
export interface Waiting {
  readonly for: 'consent' | 'deferral' | 'window' | 'ready' | 'start-delay' | 'clock';
  /** What cannot begin. */
  readonly before: 'download' | 'apply';
  /** Seconds until it is over, or somebody is asked again; `null` where nobody knows. */
  readonly after: number | null;
}

/** A time of the week: `from` and `to` as `HH:MM`; on every day, and in UTC, where nothing else is said. */
export interface Window {
  days?: Array<'mon' | 'tue' | 'wed' | 'thu' | 'fri' | 'sat' | 'sun'>;
  from: string;
  to: string;
  zone?: string;
}

/** The events of an updater, and what their listeners are called with. */
export interface UpdaterEvents {
  /** A request was accepted. `uri` is as it may be shown. */
  accepted: [{ readonly uri: string; readonly version: string | null }];
  /** The update has come to a phase. */
  phase: [Phase];
  /** So many bytes of the image are there. At most ten a second, and one as an attempt ends. */
  progress: [{ readonly bytes: number; readonly total: number | null }];
  /** The update waits for something else than before. */
  waiting: [Waiting];
  /** An attempt at the download failed and is repeated after so many seconds. */
  retry: [{ readonly error: TwinflashError; readonly after: number }];
  /** The image passed its checks, or, where there are none, its transport vouches for it. `sha256` in hexadecimal. */
  verified: [{ readonly by: 'checks' | 'signature' | 'transport'; readonly bytes: number; readonly sha256: string }];
  /** The update ended. */
  ended: [Outcome];
  /** A request was refused. */
  refused: [TwinflashError];
  /** Other keys are trusted from now on: the version of their set. */
  keysRotated: [number];
  /** Something a person should look at, such as a line of what a command printed that failed. */
  warning: [string];
  /** To be sent to the hub. Kept until somebody listens. Not needed with `attach` or `Device`. */
  report: [Report];
  /** The twin is to be read, and given to `handleTwin`. As `report`. */
  readTwin: [];
  /** It was closed: the last event. */
  close: [];
}

/** An event, as `events()` gives it. */
export type UpdaterEvent = {
  [Name in Exclude<keyof UpdaterEvents, 'close'>]: { readonly type: Name; readonly value: UpdaterEvents[Name] extends [infer Value] ? Value : undefined };
}[Exclude<keyof UpdaterEvents, 'close'>];

/** A program and its arguments. There is no shell. */
export type Command = readonly [string, ...string[]];

/** What makes an activated image run: nothing, the end of this process, a reboot, or a command. */
export type RestartOption = 'none' | 'exit' | 'system' | Command;

/** A file that an update replaces. Its directory must exist. */
export interface FileInstall {
  file: string;
  /** Reads the new file back from its medium before it takes the old one's place. */
  verify?: 'read-back';
  /** Default: `none`. */
  restart?: RestartOption;
}

/** Two slots, of which one runs while the other is written. */
export interface SlotsInstall {
  /** What the boot loader calls them, and their block devices or image files. */
  slots: Record<string, string>;
  /** What decides which one is started. */
  switch:
    | { link: string }
    | { uboot: { config?: string; [key: string]: unknown } }
    | { tryboot: { autoboot: string; partitions: readonly [number, number] } }
    | { commands: { try: Command; keep: Command; running: Command } };
  /** What tells which one runs. */
  running?: { kernelArgument: string } | { ubootVariable: string } | { link: string } | { command: Command };
  /** Reads the image back from its medium before it is activated. */
  verify?: 'read-back';
  /** Seconds each command has. */
  commandTime?: number;
  /** Default: `system`. */
  restart?: RestartOption;
}

/** A command that is handed the image: `{image}` is its path, `{version}` the version asked for. */
export interface CommandInstall {
  command: Command;
  /** Seconds it has. Default: 1800. */
  installTime?: number;
  /** Prints which image runs: new, old or unknown. */
  inspect?: Command;
  /** Makes the new image stay. */
  confirm?: Command;
  /** Goes back to the old one. */
  rollback?: Command;
  /** Seconds each of these has. Default: 60. */
  commandTime?: number;
  /** Default: `none`. */
  restart?: RestartOption;
}

/** Which image runs, or would run at the next start; `partial`: the old one, and a part of a new one. */
export type ImageState = 'old' | 'new' | 'partial' | 'unknown';

type Async<T> = T | PromiseLike<T>;

/**
 * An installer of the application's own. Its methods are called one at a time; each may answer with a promise. What one throws
 * fails the update, with its message and its `code` if that is one of `codes` (of Node's own errors, `ENOSPC`, `EACCES` and the like
 * are translated).
 *
 * Every method but `write` may be called again after a crash in the middle of it, and must then end in the same state. The order is:
 * `inspect` at every start; for an update `begin`, many `write` and `sync`, `finish`, `activate`, a restart if `restart` says so, then
 * `confirm` or `rollback`. `abort` ends an update before `activate`.
 */
export interface Installer {
  /**
   * Which image runs. Asked at every start, and after a crash. A promise needs `Updater.open`. The new one is the one written last,
   * also once it is confirmed; from `begin` on the one being written, which does not run.
   */
  inspect(): Async<ImageState>;
  /**
   * Makes ready to write an image; called for each attempt at its download, or twice where the server starts over. `resumeAt` is the offset of the
   * last checkpoint; the answer is where writing really starts: `resumeAt` where the bytes before it are still there, else 0.
   */
  begin(image: { readonly size: number | null; readonly version: string | null }, resumeAt: number): Async<number>;
  /** Writes bytes at an offset. Offsets follow one another without gaps from where `begin` said. */
  write(offset: number, bytes: Buffer): Async<void>;
  /** Makes durable what was written; the answer is up to which offset that is. */
  sync(): Async<number>;
  /** All bytes are written, synced and verified: makes the image ready to be activated. */
  finish(): Async<void>;
  /** Switches to the new image, in one step that no power cut can halve. */
  activate(): Async<void>;
  /** The new image has proved itself: it stays. */
  confirm(): Async<void>;
  /** Switches back to the old image, which is then active again, or will be after a restart. */
  rollback(): Async<void>;
  /** Ends an update that was not activated: what was written of the new image goes. */
  abort(): Async<void>;
  /** After `finish`: reads the image from its medium and compares it with its size in bytes and its SHA-256. */
  readBack?(size: number, sha256: string): Async<void>;
  /** Whether the active image is one of this SHA-256, so that it need not be fetched again. */
  holds?(sha256: string): Async<boolean>;
  /** What makes an activated image run. Default: `none`. */
  restart?: RestartOption;
}

/** What the device's owner allows. Times in seconds. */
export interface Policy {
  /** Let in http: addresses as well as https:. A check value is required then. Default: false. */
  allowHttp?: boolean;
  /** The largest image, in bytes. Default: 4 GiB. */
  maxSize?: number;
  /** Require a check value even where the contract does not. Default: false. */
  requireCheck?: boolean;
  /** Require a signed manifest. So it is in any case where there are keys. Default: false. */
  requireManifest?: boolean;
  /** The lowest version that a manifest may be of, besides what the manifests of confirmed updates say. */
  floor?: string;
  /** Which versions are taken, besides what the contract says. Default: `none`, the contract alone. */
  version?: 'other' | 'higher' | 'none';
  /** Before which stages the user must agree (`approve()`). Default: none. */
  consent?: Array<'download' | 'apply'>;
  /** Who may agree: also whoever may call the device's methods, or only somebody at the device. Default: `anybody`. */
  consentBy?: 'anybody' | 'local';
  /** Asks the user: status 0 is yes, 75 not yet, any other no. `{stage}`, `{version}` and `{size}` are filled in. */
  consentCommand?: Command;
  /** It is asked again after this, where it does not print itself in how many seconds. Default: 3600. */
  consentInterval?: number;
  /** Says whether the device can take it now: status 0 is yes, any other not yet. */
  ready?: Command;
  /** Default: 300. */
  readyInterval?: number;
  /** A download begins after a random part of this. Default: 0. */
  startDelay?: number;
  /** No more bytes a second. Default: as many as come. */
  bandwidth?: number;
  /** Download and verify, and write and install nothing. Default: false. */
  dryRun?: boolean;
  /** When images are downloaded, and when they are applied. Default: always. */
  downloadWindows?: Window[];
  applyWindows?: Window[];
  /** The first pause before a failed download is repeated. It doubles each time. Default: 1. */
  retryFirst?: number;
  /** The longest such pause. Default: 300. */
  retryLongest?: number;
  /** So long it is repeated in all. Default: a day. */
  retryTime?: number;
  /** And until so many times the image's size has been fetched. Default: 4. */
  retrySizes?: number;
  /** After so much time what has been fetched is made safe from a power cut. Default: 1. */
  checkpointInterval?: number;
  /** Or after so many bytes. Default: 16 MiB. */
  checkpointBytes?: number;
  /** Fewer bytes than `stallBytes` in this time are a stalled download, which is begun anew. Default: 30. */
  stallTime?: number;
  /** Default: 1024. */
  stallBytes?: number;
  /** Redirects that are followed. Default: 5. */
  maxRedirects?: number;
  /** Progress reaches the twin in steps of so many per cent; 0: never. Default: 10. */
  progressStep?: number;
  /** And no more often than this. Default: 30. */
  progressInterval?: number;
  /** So long a method's answer waits for the hub to have the first report. Default: 2. */
  answerWait?: number;
  /** How often installing the image is begun before the update has failed. Default: 3. */
  applyAttempts?: number;
  /** How a new version proves itself: it reaches its hub, not at all, `confirm()`, or a command that ends with 0. Default: `connected`. */
  confirm?: 'connected' | 'none' | 'call' | Command;
  /** Starts a new version has to prove itself. Default: 3. */
  confirmAttempts?: number;
  /** Time it has. Default: 300. */
  confirmTime?: number;
}

/** How images are fetched. */
export interface Http {
  /** Which certificate authorities may vouch for the server: a PEM text, a PEM file, or `system`. Default: Mozilla's, built in. */
  ca?: string;
  /** `environment`, `none`, or a proxy's URL. Default: `environment`. */
  proxy?: string;
  /** Default: twinflash and its version. */
  userAgent?: string;
  /** Seconds that finding a server and connecting to it may take. Default: 20. */
  connectTimeout?: number;
  /** The only hosts that are asked, also after a redirect: names, or `*.domain`. Default: any. */
  hosts?: readonly string[];
  /** What is shown to a server that asks who the device is: a PEM text, or a PEM file; the key may be in it. */
  clientCertificate?: string;
  /** The certificate's key, where it is not beside the certificate. */
  clientKey?: string;
  /**
   * Headers of every request to the server an address names, not to one it redirects to. Values are shown nowhere; `@FILE` is what that
   * file holds.
   */
  headers?: Readonly<Record<string, string>>;
}

/** With keys, nothing is installed but what they have signed. */
export interface Trust {
  /** Public keys: PEM files, or PEM texts. */
  keys?: readonly string[];
  /** How many of them must sign. Default: 1. */
  threshold?: number;
  /** The key set's version. Keys that come later, signed by these, have a higher one. Default: 1. */
  version?: number;
  /** Ids of keys that count for nothing. */
  revoked?: readonly string[];
  /** What the device is, for images that are not for all. Compared letter for letter. */
  manufacturer?: string;
  model?: string;
  hardwareRevision?: string;
  /** An age identity file, which only its owner may read: decrypts images that a manifest calls encrypted. */
  decryptionKey?: string;
}

/** How an updater is set up. Relative paths are relative to the process's working directory. */
export interface UpdaterOptions {
  /** Where it remembers what it was doing; made where it is not there. Not within what is updated. */
  stateDir: string;
  /** How a back end asks and what it is told: a built-in contract by its name, a file (`./contract.json`), or the contract. Default: `iothub-dm`. */
  contract?: string | Record<string, unknown>;
  /** The version that runs now. Without it and `versionFrom`, that of the last update that succeeded. */
  currentVersion?: string;
  /** What tells the version that runs now, in its first line. */
  versionFrom?: { file: string } | { command: Command };
  /** What is installed, and how. */
  install: FileInstall | SlotsInstall | CommandInstall | Installer;
  policy?: Policy;
  http?: Http;
  trust?: Trust;
  /** For `Device`: the device's connection string, or `@FILE`. */
  connectionString?: string;
  /** For `Device`: which authorities may vouch for the hub; as in `http`. */
  ca?: string;
  /**
   * For `Device`, where its connection string says `x509=true`: its certificate, followed by those up to its authority; a PEM text, or
   * a PEM file. The key may be in it.
   */
  clientCertificate?: string;
  /** The certificate's key, where it is not beside the certificate. */
  clientKey?: string;
  /**
   * Called in place of the restart that `install` asks for. By default the process ends with status 0 (`exit`; in a worker, the worker
   * does) or the command is run.
   */
  onRestart?: (restart: { readonly kind: 'none' | 'exit' | 'system' | 'command'; readonly command: string[] | null }) => Async<void>;
}

/**
 * Firmware updates for one device, without a connection of its own: methods, twins and results come in by `handle…`, reports go out as
 * events. `attach` does that for azure-iot-device; `Device` is a connection of the package's own.
 *
 * No call waits: whatever takes time happens on threads of its own. A running update, and a promise that is not settled yet, keep the
 * process alive; an updater that has nothing to do does not.
 */
export class Updater extends EventEmitter {
  /**
   * Starts an updater: takes the state directory, reads the journal and goes on with what it says.
   *
   * @throws {TypeError} `invalid-config`: an option is wrong; the message names it.
   * @throws {TwinflashError} `locked`: another process holds the state directory. `state`: it cannot be used.
   */
  constructor(options: UpdaterOptions);

  /** As the constructor, for an installer of the application's own whose `inspect` answers with a promise. */
  static open(options: UpdaterOptions): Promise<Updater>;

  /**
   * The direct methods that are the updater's: the contract's, and `getFirmwareUpdateStatus`, `cancelFirmwareUpdate`,
   * `approveFirmwareUpdate` and `deferFirmwareUpdate`.
   */
  readonly methods: string[];

  /**
   * A direct method was called. `null` where it is not one of `methods`: the application answers it then. For a method that starts an
   * update it is settled when the hub has the first report, or after two seconds. A `Uint8Array` is taken as the JSON text itself.
   */
  handleMethod(name: string, payload?: unknown): Promise<Answer | null>;

  /** A twin was read (`{ desired, reported }`), or, where it is not `complete`, its desired properties were patched. */
  handleTwin(twin: unknown, complete?: boolean): void;

  /** The twin could not be read; `readTwin` comes again after a pause. */
  twinFailed(): void;

  /** The hub is connected, or no longer. */
  connected(connected?: boolean): void;

  /** A report's result: the hub's status, such as 204, or 0 if the report was lost. */
  reportDone(id: number, status: number): void;

  /** Where everything stands. */
  status(): Status;

  /** The application says that the new version is good (needed for the policy `confirm: 'call'`; taken under any). */
  confirm(): void;

  /**
   * Cancels the update that runs; `false` where none does. It has ended when this returns, and that is durable after `flush`.
   *
   * @throws {TwinflashError} `busy`: the image is being applied, or has been. `state`: the updater is closed.
   */
  cancel(): boolean;

  /** The user agrees to what the update waits for (`waiting`, `for: 'consent'`); `false` where nobody is asked. Who does not agree calls `cancel`. */
  approve(): boolean;

  /**
   * The user puts the update off: until then nobody is asked, no attempt at the download is begun, and nothing applied; also over restarts.
   * `false` where no update runs.
   *
   * @throws {TwinflashError} `busy`: the image is being applied, or has been.
   */
  defer(seconds: number): boolean;

  /**
   * Installs an image from a file of this device, under the same rules as any other; nobody is asked for consent. Where keys are trusted and no
   * `manifest` is given, it is the file's own name and `.jws`. The file must stay until the update is being applied.
   *
   * @throws {TwinflashError} `busy`: an update runs. `storage`, `no-permission`: the file cannot be read.
   */
  installFile(path: string, options?: { version?: string; check?: string; manifest?: string }): void;

  /** Pauses the download of the update that runs, over restarts too, until `resume()`. */
  pause(): void;

  /** Goes on with a paused download; at once also with one that waits for its next attempt. */
  resume(): void;

  /**
   * Settled when everything decided so far is done and durable: a cancelled update is, a paused download has stopped and its last bytes are
   * safe.
   *
   * @param options.timeout in seconds; default: 60.
   * @throws {TwinflashError} `state`: it could not be saved (and is tried again), not in time, or the updater was closed.
   */
  flush(options?: { timeout?: number }): Promise<void>;

  /**
   * Settled when an update has ended, none runs, the outcome is durable, and the hub has been told (if it is connected): at once where that is
   * so already; where it could not be saved or told within `timeout` (in seconds), with the outcome all the same. Rejects with an
   * `AbortError` (the update goes on), a `TimeoutError` when there was no end in time, or `state` when the updater is closed.
   */
  done(options?: { signal?: AbortSignal; timeout?: number }): Promise<Outcome>;

  /** Everything that happens from now on, until the updater is closed. Who is more than 1000 events behind misses the oldest. */
  events(): AsyncIterableIterator<UpdaterEvent>;

  /** Stops with a checkpoint and gives the state directory back, within a second. What runs goes on at the next start. */
  close(): Promise<void>;

  [Symbol.asyncDispose](): Promise<void>;

  on<Name extends keyof UpdaterEvents>(name: Name, listener: (...args: UpdaterEvents[Name]) => void): this;
  once<Name extends keyof UpdaterEvents>(name: Name, listener: (...args: UpdaterEvents[Name]) => void): this;
  off<Name extends keyof UpdaterEvents>(name: Name, listener: (...args: UpdaterEvents[Name]) => void): this;
  addListener<Name extends keyof UpdaterEvents>(name: Name, listener: (...args: UpdaterEvents[Name]) => void): this;
  removeListener<Name extends keyof UpdaterEvents>(name: Name, listener: (...args: UpdaterEvents[Name]) => void): this;
}

/** What the guard did. */
export interface Guarded {
  /**
   * `nothing`: no new version has to prove itself. `counted`: this start of the new version was. `rolled-back`: it had used up its starts, and
   * the old one is back: end the process, so that the supervisor starts that one.
   */
  readonly kind: 'nothing' | 'counted' | 'rolled-back';
  /** Where it was counted: starts so far, this one among them. Else 0. */
  readonly starts: number;
  /** Where it was counted: starts it has. Else 0. */
  readonly allowed: number;
}

/**
 * Counts a start of a new version that has to prove itself, and brings the old one back when it has used up its starts.
 *
 * To be called as a program's first line, before anything of it can fail: an updater that lives in the program it updates cannot roll back
 * when that program does not come to start it. It waits for the disk, and for a slot installer's commands. For the installers built in; the
 * application's own cannot be made here.
 *
 * @throws {TwinflashError} `locked`: a process that runs holds the state directory. `state`: it cannot be used. `rollback-failed` and others:
 * the old image could not be brought back.
 */
export function guard(stateDir: string): Guarded;

/** What of azure-iot-device's `Client` is used. */
export interface AzureClient {
  open(): Promise<unknown>;
  onDeviceMethod(name: string, callback: (request: any, response: any) => void): void;
  getTwin(callback: (error?: Error, twin?: any) => void): void;
  on(event: string, listener: (...args: any[]) => void): unknown;
  removeListener(event: string, listener: (...args: any[]) => void): unknown;
}

/**
 * Has a client of azure-iot-device (over `Mqtt` or `MqttWs`) serve an updater: the updater's methods, the twin, reports and their
 * results. The application's handlers for other methods, and its own use of the twin, are left alone. The client stays the
 * application's to open and close; it is opened here if it is not. Detached by what this answers with, and when the updater is closed.
 *
 * A line that breaks is the SDK's to make anew. Where it cannot for longer than it tries (four minutes), the client emits `disconnect` and tries
 * no more: the application has to open it again, and the updater goes on by itself.
 *
 * @throws Error of the SDK, where the client cannot be opened, a method of the updater's has a handler already, or the twin cannot be read.
 * TwinflashError with code `'state'`, where the updater is closed or being closed.
 */
export function attach(client: AzureClient, updater: Updater): Promise<{ detach(): void }>;

/** The events of a device. */
export interface DeviceEvents {
  /** The hub is connected. */
  connect: [];
  /** It is not, and why; it is tried again. */
  disconnect: [TwinflashError];
  /** The hub did not do what it was asked for. */
  refused: [TwinflashError];
  /** The time is not known, without which no token can be made: connecting waits for it. */
  waitingForClock: [];
  /** It was closed. */
  close: [];
}

/** What a `Device` connects by; a member that is left out is the one of the updater's options. */
export type DeviceOptions = Pick<UpdaterOptions, 'connectionString' | 'ca' | 'clientCertificate' | 'clientKey'>;

/** An updater's own connection to its hub: no SDK is needed. It keeps the process alive until it is closed. */
export class Device extends EventEmitter {
  /**
   * Starts to connect; returns at once. It stays connected, with a renewed token and after every failure, until it is closed.
   * What is not given it takes from the updater's options. `@FILE` stands for what that file holds.
   */
  constructor(updater: Updater, options?: DeviceOptions);

  readonly updater: Updater;

  /** Ends the connection and closes the updater. */
  close(): Promise<void>;

  [Symbol.asyncDispose](): Promise<void>;

  on<Name extends keyof DeviceEvents>(name: Name, listener: (...args: DeviceEvents[Name]) => void): this;
  once<Name extends keyof DeviceEvents>(name: Name, listener: (...args: DeviceEvents[Name]) => void): this;
  off<Name extends keyof DeviceEvents>(name: Name, listener: (...args: DeviceEvents[Name]) => void): this;
}
