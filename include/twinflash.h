#ifndef TWINFLASH_H
#define TWINFLASH_H

/* Made from the sources in bindings/src by `cargo xtask header`: do not edit. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/**
 * twinflash: firmware updates for devices on Azure IoT Hub.
 *
 * An updater takes direct methods and twins in and gives reports out; between the two it downloads,
 * verifies and installs an image, through power cuts and bad networks. Either an Azure SDK carries
 * these, in a handful of calls (see examples/c/device_sdk.c), or twinflash_device connects by itself:
 *
 *     twinflash_error error;
 *     twinflash_updater *updater;
 *     twinflash_device *device;
 *     twinflash_builder *builder = twinflash_builder_new();
 *     twinflash_builder_set_string(builder, "state_dir", "/var/lib/fw", NULL);
 *     twinflash_builder_set_string(builder, "current_version", "1.0.0", NULL);
 *     twinflash_builder_set_string(builder, "install.file", "/opt/app/app.bin", NULL);
 *     if (twinflash_builder_start(builder, &updater, &error) != TWINFLASH_STATUS_OK
 *         || twinflash_device_connect(updater, connection_string, NULL, NULL, NULL, &device, &error)
 *             != TWINFLASH_STATUS_OK)
 *         fprintf(stderr, "%s\n", error.message);
 *     twinflash_builder_free(builder);
 *
 * Rules that hold everywhere:
 *
 * - Every function that can fail returns a twinflash_status, 0 for success, and takes as its last
 *   argument a twinflash_error to fill in, which may be NULL (twinflash_updater_free and
 *   twinflash_device_free take none).
 * - What a function ending in _new, _start, _connect or _state, or with _next_ in it, gives is the caller's, to be
 *   given to the _free of its type, once. _free(NULL) does nothing. What is handed in stays the
 *   caller's, and is copied where it is needed longer than the call.
 * - Texts are UTF-8 and end with a zero, but where a length is given. Lengths are in bytes.
 * - NULL where it may not be, text that is not UTF-8 and the like are an error, not a crash. A pointer
 *   to something freed is not noticed.
 * - Functions may be called from any thread. Callbacks come on threads of the library, each
 *   of them one at a time, with no lock held that a call could wait for. A callback returns: no C++
 *   exception and no longjmp() leaves it. There is no global state, and no signal handler is set.
 * - A child of fork() must not use what it inherited; fork() and then exec() is fine.
 */

/** This header's version; twinflash_version() is the library's. */
#define TWINFLASH_VERSION "0.1.0"
#define TWINFLASH_VERSION_MAJOR 0
#define TWINFLASH_VERSION_MINOR 1
#define TWINFLASH_VERSION_PATCH 0

/**
 * What became of a call. The numbers are stable: a retired one is never used again. From 100 on they
 * are the failure codes the device's twin shows by name (see twinflash_status_name).
 */
enum twinflash_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** Done. */
    TWINFLASH_STATUS_OK = 0,
    /** The direct method is not one of the updater's: it is the application's to answer. */
    TWINFLASH_STATUS_NOT_MINE = 1,
    /** There was nothing within the time given. */
    TWINFLASH_STATUS_TIMEOUT = 2,
    /** The updater is closed. */
    TWINFLASH_STATUS_CLOSED = 3,
    /** The bytes that are offered are not wanted, or no longer: end the request, and ask what is. */
    TWINFLASH_STATUS_NOT_WANTED = 4,
    /** A pointer is NULL that may not be. */
    TWINFLASH_STATUS_NULL_ARGUMENT = 10,
    /** A text is not UTF-8. */
    TWINFLASH_STATUS_INVALID_UTF8 = 11,
    /** An argument has a value it cannot have: a length beyond the address space, an unknown key. */
    TWINFLASH_STATUS_INVALID_ARGUMENT = 12,
    /** It was given already: a key of the configuration, a callback, an installer. */
    TWINFLASH_STATUS_ALREADY_SET = 13,
    /** The builder was used up by twinflash_builder_start. */
    TWINFLASH_STATUS_USED = 14,
    /** It would wait for the very callback it is called in. */
    TWINFLASH_STATUS_IN_CALLBACK = 15,
    /**
     * A fault of the library, which it caught: please report it. (A library built with the profile `small`
     * ends the process instead.)
     */
    TWINFLASH_STATUS_PANIC = 16,
    /** The system refused what is needed: a thread, memory, a descriptor. */
    TWINFLASH_STATUS_SYSTEM = 17,
    /** The request is not of the form its contract asks for. */
    TWINFLASH_STATUS_INVALID_REQUEST = 100,
    /** The URI cannot be parsed, is relative, or has a scheme that is not known. */
    TWINFLASH_STATUS_INVALID_URI = 101,
    /** The URI is http, and the policy wants https. */
    TWINFLASH_STATUS_INSECURE_URI = 102,
    /** The check value is of no known kind. */
    TWINFLASH_STATUS_INVALID_CHECK = 103,
    /** The contract or the policy requires a check, and the request has none. */
    TWINFLASH_STATUS_CHECK_REQUIRED = 104,
    /** The version asked for is not one the contract or the policy lets in. */
    TWINFLASH_STATUS_VERSION_REFUSED = 105,
    /** An update runs already; or it can no longer be cancelled. */
    TWINFLASH_STATUS_BUSY = 106,
    /** Keys are configured, and nothing signed vouches for the image. */
    TWINFLASH_STATUS_MANIFEST_REQUIRED = 150,
    /** A signed document is not of the form it must have, or does not fit the request. */
    TWINFLASH_STATUS_MANIFEST_INVALID = 151,
    /** A signed document is not signed by as many trusted keys as must sign. */
    TWINFLASH_STATUS_UNTRUSTED = 152,
    /** A manifest has expired, or was issued at a time to come. */
    TWINFLASH_STATUS_EXPIRED = 153,
    /** The image is for another model, manufacturer or hardware revision. */
    TWINFLASH_STATUS_INCOMPATIBLE = 154,
    /** A key, or a set of keys, cannot be used. */
    TWINFLASH_STATUS_INVALID_KEY = 155,
    /** The server answered with a status that ends the download. */
    TWINFLASH_STATUS_HTTP_STATUS = 200,
    /** The server's answer breaks HTTP or what was asked of it. */
    TWINFLASH_STATUS_HTTP_PROTOCOL = 201,
    /** Too many redirects, or one that leads where it must not. */
    TWINFLASH_STATUS_REDIRECT = 202,
    /** The connection could not be made, or broke. */
    TWINFLASH_STATUS_NETWORK = 203,
    /** TLS failed: an unknown certificate authority, a wrong host name, an expired certificate. */
    TWINFLASH_STATUS_TLS = 204,
    /** Too few bytes came for too long. */
    TWINFLASH_STATUS_STALLED = 205,
    /** The image is larger than announced, or than the policy allows. */
    TWINFLASH_STATUS_TOO_LARGE = 206,
    /** The image's size is not the one announced. */
    TWINFLASH_STATUS_SIZE_MISMATCH = 300,
    /** The image's CRC-16 or CRC-32 is not the one announced. */
    TWINFLASH_STATUS_CRC_MISMATCH = 301,
    /** The image's SHA-256 is not the one announced. */
    TWINFLASH_STATUS_HASH_MISMATCH = 302,
    /** The image cannot be decrypted: it is encrypted for others, was altered, or this device has no key. */
    TWINFLASH_STATUS_DECRYPTION_FAILED = 303,
    /** There is not enough free space for the image. */
    TWINFLASH_STATUS_NO_SPACE = 400,
    /** A file or directory may not be read or written. */
    TWINFLASH_STATUS_NO_PERMISSION = 401,
    /** Reading or writing the image failed in another way. */
    TWINFLASH_STATUS_STORAGE = 402,
    /** The installer could not finish or activate the image. */
    TWINFLASH_STATUS_INSTALL_FAILED = 403,
    /** The new version did not confirm itself in time, or in the starts it is given. */
    TWINFLASH_STATUS_NOT_CONFIRMED = 404,
    /** The boot loader went back to the old image. */
    TWINFLASH_STATUS_BOOT_FAILED = 405,
    /** The old image could not be brought back. */
    TWINFLASH_STATUS_ROLLBACK_FAILED = 406,
    /** The update was cancelled. */
    TWINFLASH_STATUS_CANCELLED = 500,
    /** A newer request took over. */
    TWINFLASH_STATUS_SUPERSEDED = 501,
    /** The policy wants a dry run: the image is good, and is not installed. */
    TWINFLASH_STATUS_DRY_RUN = 502,
    /** The state directory or the journal in it cannot be used. */
    TWINFLASH_STATUS_STATE = 600,
    /** Another process holds the state directory. */
    TWINFLASH_STATUS_LOCKED = 601,
    /** The configuration is wrong, or what it names cannot be read. */
    TWINFLASH_STATUS_INVALID_CONFIG = 602,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum twinflash_status twinflash_status;
#else
typedef int32_t twinflash_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** What an event says. More kinds may come: ignore those you do not know. */
enum twinflash_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** Something that has no kind yet in this version; `text` says it. */
    TWINFLASH_EVENT_KIND_OTHER = 0,
    /** A request was accepted: `uri` (without its query), `version`. */
    TWINFLASH_EVENT_KIND_ACCEPTED = 1,
    /** The update has come to a phase: `phase`. */
    TWINFLASH_EVENT_KIND_PHASE = 2,
    /**
     * So much of the image is there: `bytes` of `total`. At most ten a second, and one as an attempt ends.
     */
    TWINFLASH_EVENT_KIND_PROGRESS = 3,
    /** An attempt failed and is repeated: `status`, `message`, `after_seconds`. */
    TWINFLASH_EVENT_KIND_RETRY = 4,
    /**
     * The image passed its checks: `bytes`, `sha256`; `message` says what vouches for it, "signature",
     * "checks" or "transport".
     */
    TWINFLASH_EVENT_KIND_VERIFIED = 5,
    /** The update ended: `outcome`; where it failed, `status` and `message`. */
    TWINFLASH_EVENT_KIND_ENDED = 6,
    /** A request was refused: `status`, `message`. */
    TWINFLASH_EVENT_KIND_REFUSED = 7,
    /** Something a person should look at, such as a line of what a command printed that failed: `message`. */
    TWINFLASH_EVENT_KIND_WARNING = 8,
    /** The application is to fetch something else, or nothing any more: twinflash_updater_next_wanted. */
    TWINFLASH_EVENT_KIND_WANTED = 9,
    /**
     * The update waits for something else than before: `waiting_on` and, in a word, `message`;
     * `waiting_before`; `after_seconds`, until it is over or somebody is asked again, negative where nobody
     * knows.
     */
    TWINFLASH_EVENT_KIND_WAITING = 10,
    /** Other keys are trusted from now on: `version`, the new key set's. */
    TWINFLASH_EVENT_KIND_KEYS_ROTATED = 11,
    /** twinflash_device is connected to its hub: `message` names the server. */
    TWINFLASH_EVENT_KIND_CONNECTED = 20,
    /** It is not: `message`; it tries again after `after_seconds`. */
    TWINFLASH_EVENT_KIND_DISCONNECTED = 21,
    /** The wall time is not known, and connecting waits for it. */
    TWINFLASH_EVENT_KIND_WAITING_FOR_CLOCK = 22,
    /** The hub did not do what it was asked for: `message`. */
    TWINFLASH_EVENT_KIND_HUB_REFUSED = 23,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum twinflash_event_kind twinflash_event_kind;
#else
typedef int32_t twinflash_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** How much a line of the log matters. A greater number matters less. */
enum twinflash_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** An update failed. */
    TWINFLASH_LEVEL_ERROR = 1,
    /** A person should look at it; a retry; a refusal; a lost connection. */
    TWINFLASH_LEVEL_WARNING = 2,
    /** The course of an update. */
    TWINFLASH_LEVEL_INFO = 3,
    /** Progress. */
    TWINFLASH_LEVEL_DEBUG = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum twinflash_level twinflash_level;
#else
typedef int32_t twinflash_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** Where a running update stands. */
enum twinflash_phase
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** None runs. */
    TWINFLASH_PHASE_NONE = 0,
    /** Accepted; the policy has not let it start yet. */
    TWINFLASH_PHASE_WAITING = 1,
    /** The image is being fetched, checked as it streams, and written. */
    TWINFLASH_PHASE_DOWNLOADING = 2,
    /** Every byte is there; the checks are compared. */
    TWINFLASH_PHASE_VERIFYING = 3,
    /** The image is being installed and activated. From here on it can not be cancelled. */
    TWINFLASH_PHASE_APPLYING = 4,
    /** Activated; it runs after a restart. */
    TWINFLASH_PHASE_REBOOTING = 5,
    /** It runs, and has to prove itself. */
    TWINFLASH_PHASE_CONFIRMING = 6,
    /** It failed after it was activated; the old image is being brought back. */
    TWINFLASH_PHASE_ROLLING_BACK = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum twinflash_phase twinflash_phase;
#else
typedef int32_t twinflash_phase;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** How an update ended. However it did, the next one can start. */
enum twinflash_outcome
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** None has ended yet, or one runs. */
    TWINFLASH_OUTCOME_NONE = 0,
    /** The new image runs and has proved itself. */
    TWINFLASH_OUTCOME_COMPLETED = 1,
    /** The version asked for was running already; nothing was fetched. */
    TWINFLASH_OUTCOME_UP_TO_DATE = 2,
    /** It failed; the old image is what it was. */
    TWINFLASH_OUTCOME_FAILED = 3,
    /** The new image was activated and did not prove itself; the old one is back. */
    TWINFLASH_OUTCOME_ROLLED_BACK = 4,
    /** It was cancelled. */
    TWINFLASH_OUTCOME_CANCELLED = 5,
    /** A newer request took its place. */
    TWINFLASH_OUTCOME_SUPERSEDED = 6,
    /** In a way this version of the interface has no number for. */
    TWINFLASH_OUTCOME_OTHER = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum twinflash_outcome twinflash_outcome;
#else
typedef int32_t twinflash_outcome;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** What an update waits for. More may come: an unknown one is to be taken as TWINFLASH_WAIT_OTHER. */
enum twinflash_wait
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** For nothing of these. */
    TWINFLASH_WAIT_NONE = 0,
    /** The user has to agree: twinflash_updater_approve ("policy.consent"). */
    TWINFLASH_WAIT_CONSENT = 1,
    /** The user has put it off: twinflash_updater_defer. */
    TWINFLASH_WAIT_DEFERRAL = 2,
    /** A maintenance window ("policy.download_windows", "policy.apply_windows"). */
    TWINFLASH_WAIT_WINDOW = 3,
    /** The device is not ready ("policy.ready"). */
    TWINFLASH_WAIT_READY = 4,
    /** Its start is delayed ("policy.start_delay"). */
    TWINFLASH_WAIT_START_DELAY = 5,
    /** The clock cannot be believed yet, and a window or a manifest wants to know the time. */
    TWINFLASH_WAIT_CLOCK = 6,
    /** Something that has no number yet in this version. */
    TWINFLASH_WAIT_OTHER = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum twinflash_wait twinflash_wait;
#else
typedef int32_t twinflash_wait;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** What cannot begin while an update waits. */
enum twinflash_stage
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** It waits for nothing. */
    TWINFLASH_STAGE_NONE = 0,
    /** The download. */
    TWINFLASH_STAGE_DOWNLOAD = 1,
    /** What follows once the image is there and verified. */
    TWINFLASH_STAGE_APPLY = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum twinflash_stage twinflash_stage;
#else
typedef int32_t twinflash_stage;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** What the hub is to be asked or told. */
enum twinflash_outbound_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** Send `patch` as reported properties, then call twinflash_updater_report_done with `id`. */
    TWINFLASH_OUTBOUND_KIND_REPORT = 1,
    /** Read the whole twin, then call twinflash_updater_handle_twin with `complete`. */
    TWINFLASH_OUTBOUND_KIND_READ_TWIN = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum twinflash_outbound_kind twinflash_outbound_kind;
#else
typedef int32_t twinflash_outbound_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** What makes an activated image run. */
enum twinflash_restart
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** Nothing: it is used from the next time on that somebody opens it. */
    TWINFLASH_RESTART_NONE = 0,
    /** This process ends and its supervisor starts it again. */
    TWINFLASH_RESTART_EXIT = 1,
    /** A command restarts the program that uses the image. */
    TWINFLASH_RESTART_COMMAND = 2,
    /** The device reboots. */
    TWINFLASH_RESTART_SYSTEM = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum twinflash_restart twinflash_restart;
#else
typedef int32_t twinflash_restart;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** What the guard did. */
enum twinflash_guarded
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** No new version has to prove itself. */
    TWINFLASH_GUARDED_NOTHING = 0,
    /** This start of the new version was counted. */
    TWINFLASH_GUARDED_COUNTED = 1,
    /**
     * The new version had used up its starts, and the old one is back: end the process, so that the
     * supervisor starts that one.
     */
    TWINFLASH_GUARDED_ROLLED_BACK = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum twinflash_guarded twinflash_guarded;
#else
typedef int32_t twinflash_guarded;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** Which image runs, or would run at the next start. */
enum twinflash_image_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** It cannot be told. */
    TWINFLASH_IMAGE_STATE_UNKNOWN = 0,
    /** The old image: the new one is not activated, or was rolled back. */
    TWINFLASH_IMAGE_STATE_OLD = 1,
    /** The new image: it is activated. */
    TWINFLASH_IMAGE_STATE_NEW = 2,
    /** The old image, and a new one that is only partly written. */
    TWINFLASH_IMAGE_STATE_PARTIAL = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum twinflash_image_state twinflash_image_state;
#else
typedef int32_t twinflash_image_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** An updater being set up. May be used from any thread, one at a time. */
typedef struct twinflash_builder twinflash_builder;

/** An updater's own connection to its hub. Any thread. */
typedef struct twinflash_device twinflash_device;

/**
 * Firmware updates for one device. Made by twinflash_builder_start. Every function may be called from
 * any thread, and several at once; but nothing may be called any more once twinflash_updater_free is.
 * Several updaters in one process share nothing.
 */
typedef struct twinflash_updater twinflash_updater;

/**
 * Why a call failed: filled in by the call, where its argument is not NULL and it returns anything but
 * TWINFLASH_STATUS_OK. Memory is the caller's; there is nothing to free.
 */
typedef struct twinflash_error {
    /** The call's own result. */
    twinflash_status status;
    /**
     * What failed, with which value, and what to do about it: one line of UTF-8, ended by a zero.
     * Never holds a secret.
     */
    char message[520];
} twinflash_error;

/**
 * Called once, when a callback is not called any more, to free its `user_data`. May be NULL. On any
 * thread; what may not be called in a callback may not be called here, of no updater.
 */
typedef void (*twinflash_destroy_callback)(void *user_data);

/** What is to be installed, as far as it is known before its bytes come. */
typedef struct twinflash_image {
    /** `size` is known. */
    bool has_size;
    /** The image's size in bytes, if announced by request or server. */
    uint64_t size;
    /** The version asked for; NULL where the request names none. */
    const char *version;
} twinflash_image;

/** A step of twinflash_installer that is told nothing more. */
typedef int32_t (*twinflash_installer_step)(void *user_data, struct twinflash_error *error);

/**
 * How the application installs. Set `size` to sizeof(twinflash_installer) and what is not there to
 * NULL: the structure may grow in later versions, which take this one, too.
 *
 * Each function returns 0, or the number of a status from 100 on (such as
 * TWINFLASH_STATUS_NO_SPACE) and writes what failed, and with what, to `error->message` (never NULL).
 * One is called at a time; they may block. `inspect` is called in twinflash_builder_start on its thread,
 * before there is a handle, the others on a thread of the updater that has only them, so that they may
 * run while another callback does. What may not be called in twinflash_event_callback may not be called
 * in these.
 *
 * Every function but `write` may be called again after a crash in the middle of it, and must then end
 * in the same state. The order is: `inspect` at every start; for an update `begin`, many `write` and
 * `sync`, `finish`, `activate`, a restart if `restart` says so, then `confirm` or `rollback`.
 * `abort` ends an update before `activate`.
 */
typedef struct twinflash_installer {
    /** sizeof(twinflash_installer). */
    size_t size;
    /** Given to every function. */
    void *user_data;
    /** Frees `user_data`, once. May be NULL. */
    twinflash_destroy_callback destroy;
    /** What makes an activated image run: a twinflash_restart, but not TWINFLASH_RESTART_COMMAND. */
    int32_t restart;
    /**
     * Which image runs: a twinflash_image_state. Asked at every start, and after a crash. The new one is
     * the one written last, also once it is confirmed: power may fail before that is remembered. From
     * `begin` on it is the one being written, which does not run.
     */
    int32_t (*inspect)(void *user_data, int32_t *state, struct twinflash_error *error);
    /**
     * Makes ready to write an image. `resume_at` is the offset of the last checkpoint, in bytes;
     * `*start_at` is to be where writing really starts: `resume_at` where the bytes before it are
     * still there, else 0 (what it is before). Checks that there is room.
     */
    int32_t (*begin)(void *user_data,
                     const struct twinflash_image *image,
                     uint64_t resume_at,
                     uint64_t *start_at,
                     struct twinflash_error *error);
    /** Writes bytes at an offset. Offsets follow one another without gaps from where `begin` said. */
    int32_t (*write)(void *user_data,
                     uint64_t offset,
                     const uint8_t *bytes,
                     size_t length,
                     struct twinflash_error *error);
    /** Makes durable what was written; `*durable` is to be the offset up to which that is. */
    int32_t (*sync)(void *user_data, uint64_t *durable, struct twinflash_error *error);
    /** All bytes are written, synced and verified: make the image ready to be activated. */
    twinflash_installer_step finish;
    /** Switches to the new image, in one step that no power cut can halve. */
    twinflash_installer_step activate;
    /** The new image has proved itself: it stays. */
    twinflash_installer_step confirm;
    /** Switches back to the old image, which is then active again, or will be after a restart. */
    twinflash_installer_step rollback;
    /** Ends an update that was not activated: what was written of the new image goes. */
    twinflash_installer_step abort;
    /**
     * May be NULL. After `finish`: reads the image from its medium and compares it with its size in
     * bytes and its SHA-256 (32 bytes).
     */
    int32_t (*read_back)(void *user_data,
                         uint64_t size,
                         const uint8_t *sha256,
                         struct twinflash_error *error);
    /**
     * May be NULL. `*holds` is to be whether the active image is, byte for byte, one of this SHA-256
     * (32 bytes), so that it need not be fetched again.
     */
    int32_t (*holds)(void *user_data,
                     const uint8_t *sha256,
                     bool *holds,
                     struct twinflash_error *error);
} twinflash_installer;

/**
 * Something that happened. Members that an event's kind does not name are NULL, 0, or as
 * TWINFLASH_PHASE_NONE. All texts are UTF-8 and live as long as the event. Members may be added at the
 * end in later versions: do not copy the structure, and do not make one.
 */
typedef struct twinflash_event {
    /** What it says. */
    twinflash_event_kind kind;
    /** How much it matters. */
    twinflash_level level;
    /** The phase the update has come to. */
    twinflash_phase phase;
    /** How the update ended. */
    twinflash_outcome outcome;
    /** Why something failed. */
    twinflash_status status;
    /** Bytes of the image that are there. */
    uint64_t bytes;
    /** The image's size in bytes; 0 where it is not known. */
    uint64_t total;
    /** So long until the next attempt, in seconds. */
    double after_seconds;
    /** The event as one line for people. Never NULL. */
    const char *text;
    /** See the kinds. */
    const char *message;
    /** The image's address, without user name and query. */
    const char *uri;
    /** The version asked for. */
    const char *version;
    /** The image's SHA-256 in lower-case hexadecimal. */
    const char *sha256;
    /** What the update waits for. */
    twinflash_wait waiting_on;
    /** What cannot begin until then. */
    twinflash_stage waiting_before;
} twinflash_event;

/**
 * Gets each event, on the updater's own thread, one at a time. `event` lives until it returns.
 * Within it every function may be called but twinflash_updater_handle_method,
 * twinflash_updater_wait, twinflash_updater_flush, twinflash_updater_close and the updater's and the
 * device's free: these return TWINFLASH_STATUS_IN_CALLBACK. That is so in every callback, and in what
 * one calls. None comes before twinflash_builder_start has set `*updater`.
 */
typedef void (*twinflash_event_callback)(const struct twinflash_event *event, void *user_data);

/** Something to be sent to the hub. */
typedef struct twinflash_outbound {
    /** What is to be done. */
    twinflash_outbound_kind kind;
    /** The report's number. */
    uint64_t id;
    /** The patch: JSON, ended by a zero. NULL where there is none. */
    const char *patch;
    /** Its length in bytes, without the zero. */
    size_t patch_length;
} twinflash_outbound;

/**
 * Gets everything that is to be sent to the hub; as twinflash_event_callback. It must not wait for the
 * network; it may call twinflash_updater_handle_twin and twinflash_updater_report_done.
 */
typedef void (*twinflash_outbound_callback)(const struct twinflash_outbound *outbound,
                                            void *user_data);

/**
 * Called in place of the restart the installer asks for; as twinflash_event_callback. Returns 0, or a
 * failure's number and in `error` (never NULL) its message.
 */
typedef int32_t (*twinflash_restart_callback)(twinflash_restart restart,
                                              struct twinflash_error *error,
                                              void *user_data);

/** Gets each line of the log, UTF-8, without a line break; as twinflash_event_callback. */
typedef void (*twinflash_log_callback)(twinflash_level level, const char *line, void *user_data);

/** The answer to a direct method. */
typedef struct twinflash_answer {
    /** The status for the back end, such as 200. */
    int32_t status;
    /**
     * JSON, never empty, ended by a zero; made by malloc: the caller's, who calls free(), or gives it
     * to azure-iot-sdk-c, which does.
     */
    char *payload;
    /** Its length in bytes, without the zero. */
    size_t payload_length;
} twinflash_answer;

/**
 * Gets the direct methods that are not the updater's, on the connection's thread: it must not wait.
 * True where `answer->status` and, made by malloc, `answer->payload` are filled in (it is NULL before;
 * the library calls free()); false answers 404. `payload` is not ended by a zero.
 */
typedef bool (*twinflash_method_callback)(const char *name,
                                          const void *payload,
                                          size_t length,
                                          struct twinflash_answer *answer,
                                          void *user_data);

/** An image's size and check values. */
typedef struct twinflash_digests {
    /** In bytes. */
    uint64_t size;
    /** CRC-16/XMODEM, as the DevKit's fwPackageCheckValue has it. */
    uint16_t crc16;
    /** CRC-32/ISO-HDLC. */
    uint32_t crc32;
    /** SHA-256. */
    uint8_t sha256[32];
} twinflash_digests;

/**
 * Gets a method's answer, once. `answer` and what is in it live until it returns, except that
 * `answer->payload` may be kept and given to free(): set it to NULL then.
 */
typedef void (*twinflash_answer_callback)(struct twinflash_answer *answer, void *user_data);

/**
 * What the application is to fetch. Texts live as long as the structure. Members may be added at the
 * end in later versions: do not copy the structure, and do not make one.
 */
typedef struct twinflash_wanted {
    /** Names this wish in every offer; each attempt has another one. */
    uint64_t id;
    /** What is to be fetched. Its query may hold a secret: show it to nobody. */
    const char *uri;
    /** The first byte that is wanted. Where it is not 0, ask for "Range: bytes=OFFSET-"… */
    uint64_t offset;
    /** …and, where this is not NULL, with "If-Range: VALIDATOR". */
    const char *validator;
    /** Follow at most so many redirects. */
    uint32_t max_redirects;
    /** Neither the address nor a redirect may be http. */
    bool https_only;
    /** It is not an image, but the manifest beside one: a short text. */
    bool manifest;
} twinflash_wanted;

/** What a server answered to the application, before its body. Fill it with zeros, then set `size`. */
typedef struct twinflash_response {
    /** sizeof(twinflash_response). */
    size_t size;
    /**
     * The HTTP status: 200, or 206 where a part was asked for and came. Any other ends the attempt; the
     * updater decides whether there is another. Where the bytes come by something else than HTTP, 200.
     */
    int32_t status;
    /** "Retry-After" in seconds, with a status such as 503; 0 where there is none. */
    uint32_t retry_after;
    /**
     * Where in the whole the first byte belongs that is offered now: the first byte of
     * "Content-Range" with 206, else 0.
     */
    uint64_t offset;
    /**
     * The size of the whole in bytes: "Content-Length" with 200, what comes after the slash of
     * "Content-Range" with 206. 0 where it is not known.
     */
    uint64_t total;
    /** The "ETag", as it came, or NULL. It makes a later attempt go on where this one ends. */
    const char *validator;
} twinflash_response;

/**
 * Where everything stands. Texts are UTF-8 and live as long as the structure. Members may be added at
 * the end in later versions: do not copy the structure, and do not make one.
 */
typedef struct twinflash_state {
    /** The running update's phase. */
    twinflash_phase phase;
    /** How the last update ended. */
    twinflash_outcome outcome;
    /** The phase in which it failed or was cancelled. */
    twinflash_phase ended_in;
    /** Why it did, where it failed or was rolled back. */
    twinflash_status status;
    /** The download is paused. */
    bool paused;
    /** Bytes of the image that are there. */
    uint64_t bytes;
    /** The image's size in bytes; 0 where it is not known. */
    uint64_t size;
    /** The failure in words; NULL where there is none. */
    const char *message;
    /** The version the running or last update asked for; NULL where it named none. */
    const char *version;
    /** The version that runs now; NULL where it is not known. */
    const char *running_version;
    /**
     * Why the last attempt at the download failed; TWINFLASH_STATUS_OK where none did, or bytes have
     * come since.
     */
    twinflash_status retry_status;
    /** Attempts that have failed. */
    uint32_t retry_attempts;
    /**
     * The next attempt is made after so many seconds; negative while one is being made, and while the
     * download is paused.
     */
    double retry_after_seconds;
    /** That failure in words; NULL where there is none. */
    const char *retry_message;
    /** What the update waits for; docs/policy.md says how that is asked for. */
    twinflash_wait waiting_on;
    /** What cannot begin until then. */
    twinflash_stage waiting_before;
    /** It is over, or somebody is asked again, after so many seconds; negative where nobody knows. */
    double waiting_after_seconds;
    /**
     * When that is, in milliseconds since 1970; 0 where nobody knows, and while the clock cannot be
     * believed.
     */
    uint64_t waiting_until;
} twinflash_state;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library that is linked, such as "0.1.0"; TWINFLASH_VERSION is the header's.
 * Never NULL, never freed. Any thread.
 */
const char *twinflash_version(void);

/**
 * A builder with nothing set. Never NULL; given back by twinflash_builder_free, also after a start.
 * Any thread.
 */
struct twinflash_builder *twinflash_builder_new(void);

/** Frees a builder and what was given to it. NULL is fine. The updater it started stays. */
void twinflash_builder_free(struct twinflash_builder *builder);

/**
 * Sets a key that is a text: "state_dir" (required), "contract" (by default "iothub-dm"),
 * "current_version", "install.file", "policy.confirm"… Every key, its meaning and its default are in share/doc/twinflash/twinflash.toml,
 * which is installed with the library (examples/agent/twinflash.toml in the sources); a dot goes into a
 * table. Keys and values are judged when the updater starts.
 */
twinflash_status twinflash_builder_set_string(struct twinflash_builder *builder,
                                              const char *key,
                                              const char *value,
                                              struct twinflash_error *error);

/**
 * Sets a key that is a number: "policy.retry_time" (seconds), "policy.max_size" (bytes)… See
 * twinflash_builder_set_string.
 */
twinflash_status twinflash_builder_set_integer(struct twinflash_builder *builder,
                                               const char *key,
                                               int64_t value,
                                               struct twinflash_error *error);

/**
 * Sets a key that is true or false: "policy.allow_http", "policy.require_check"… See
 * twinflash_builder_set_string.
 */
twinflash_status twinflash_builder_set_bool(struct twinflash_builder *builder,
                                            const char *key,
                                            bool value,
                                            struct twinflash_error *error);

/**
 * Sets many keys at once, from a JSON object:
 * {"state_dir": "…", "install": {"command": ["rauc", "install", "{image}"]}, "policy": {"retry_time": 3600}}.
 * See twinflash_builder_set_string. What was set before stays; a key given twice is an error, and the
 * keys before it are set.
 */
twinflash_status twinflash_builder_set_json(struct twinflash_builder *builder,
                                            const char *json,
                                            struct twinflash_error *error);

/**
 * Installs by the application's own functions, in place of the key "install". The table is copied.
 * Its `destroy` is called in every case where its `size` is right.
 */
twinflash_status twinflash_builder_set_installer(struct twinflash_builder *builder,
                                                 const struct twinflash_installer *installer,
                                                 struct twinflash_error *error);

/**
 * Starts an updater: takes the state directory, reads the journal and goes on with what it says. The
 * builder is used up, whether it succeeds or not. `*updater` is NULL where it does not; otherwise it
 * is given back by twinflash_updater_free.
 *
 * Fails with TWINFLASH_STATUS_INVALID_CONFIG (the message names the key), TWINFLASH_STATUS_LOCKED
 * (another process holds the state directory), TWINFLASH_STATUS_STATE, TWINFLASH_STATUS_TLS.
 */
twinflash_status twinflash_builder_start(struct twinflash_builder *builder,
                                         struct twinflash_updater **updater,
                                         struct twinflash_error *error);

/**
 * `callback` gets each event; without one they are polled by twinflash_updater_next_event.
 * `destroy` is called in every case.
 */
twinflash_status twinflash_builder_on_event(struct twinflash_builder *builder,
                                            twinflash_event_callback callback,
                                            void *user_data,
                                            twinflash_destroy_callback destroy,
                                            struct twinflash_error *error);

/**
 * `callback` gets what is to be sent to the hub; without one it is polled by
 * twinflash_updater_next_outbound. Not needed with twinflash_device.
 *
 * It is called on the updater's own thread, and not before the application has said that it is connected,
 * or has handed over a method or a twin: it sees what was written before that. `destroy` is called in
 * every case; of an updater that runs, when it closes, after the last call has returned. A connection
 * that `callback` uses must stay until then, and an updater that the connection calls until it is gone:
 * close the updater, wait for `destroy`, end the connection, free the updater.
 */
twinflash_status twinflash_builder_on_outbound(struct twinflash_builder *builder,
                                               twinflash_outbound_callback callback,
                                               void *user_data,
                                               twinflash_destroy_callback destroy,
                                               struct twinflash_error *error);

/**
 * `callback` is called in place of the restart the installer asks for. By default
 * TWINFLASH_RESTART_EXIT ends the process with status 0, and the others run their command.
 * `destroy` as with twinflash_builder_on_event.
 */
twinflash_status twinflash_builder_on_restart(struct twinflash_builder *builder,
                                              twinflash_restart_callback callback,
                                              void *user_data,
                                              twinflash_destroy_callback destroy,
                                              struct twinflash_error *error);

/**
 * `callback` gets each line of the log that matters as much as `level`, or more. Independent of how
 * events are got. `destroy` as with twinflash_builder_on_event.
 */
twinflash_status twinflash_builder_on_log(struct twinflash_builder *builder,
                                          int32_t level,
                                          twinflash_log_callback callback,
                                          void *user_data,
                                          twinflash_destroy_callback destroy,
                                          struct twinflash_error *error);

/**
 * The application says that the new version is good (needed for "policy.confirm" = "call"; taken under
 * any policy). Never waits.
 */
twinflash_status twinflash_updater_confirm(const struct twinflash_updater *updater,
                                           struct twinflash_error *error);

/**
 * Cancels the update that runs; `*cancelled` (may be NULL) is false where none does. It has ended when
 * this returns, and that is durable after twinflash_updater_flush. TWINFLASH_STATUS_BUSY: the image is
 * being applied, which can no longer be cancelled. Never waits.
 */
twinflash_status twinflash_updater_cancel(const struct twinflash_updater *updater,
                                          bool *cancelled,
                                          struct twinflash_error *error);

/**
 * The user agrees to what the update waits for (TWINFLASH_EVENT_KIND_WAITING, "consent"); `*approved` (may
 * be NULL) is false where nobody is asked. Durable after twinflash_updater_flush. Who does not agree calls
 * twinflash_updater_cancel. Never waits.
 */
twinflash_status twinflash_updater_approve(const struct twinflash_updater *updater,
                                           bool *approved,
                                           struct twinflash_error *error);

/**
 * The user puts the update off: for `seconds` nobody is asked, no attempt at the download is begun (one
 * that runs goes on) and nothing applied. `*deferred` (may be NULL) is false where no update runs. It
 * outlives restarts; durable after twinflash_updater_flush. TWINFLASH_STATUS_BUSY: the image is being
 * applied. Never waits.
 */
twinflash_status twinflash_updater_defer(const struct twinflash_updater *updater,
                                         double seconds,
                                         bool *deferred,
                                         struct twinflash_error *error);

/**
 * Installs the image in the file `path`, such as one on a USB stick, under the same rules as any other
 * update, and reported like any other. Nobody is asked for consent. `version`, `check` (a check value) and
 * `manifest` (a file's path) may be NULL; where keys are trusted and `manifest` is NULL, it is `path` and
 * ".jws". The file must stay until the update is being applied. TWINFLASH_STATUS_BUSY: an update runs. It
 * has begun when this returns, durably after twinflash_updater_flush. The new version has to prove itself
 * like any other: with "policy.confirm" = "connected", the default, by reaching its hub.
 */
twinflash_status twinflash_updater_install_file(const struct twinflash_updater *updater,
                                                const char *path,
                                                const char *version,
                                                const char *check,
                                                const char *manifest,
                                                struct twinflash_error *error);

/**
 * Pauses the download of the update that runs, or keeps it from starting; what is there stays. Where
 * none runs, nothing happens: the next update is not paused. It stays paused over a restart, until
 * twinflash_updater_resume, a cancel or another request. Never waits; durable after
 * twinflash_updater_flush.
 */
twinflash_status twinflash_updater_pause(const struct twinflash_updater *updater,
                                         struct twinflash_error *error);

/** Goes on with a paused download; at once also with one that waits for its next attempt. Never waits. */
twinflash_status twinflash_updater_resume(const struct twinflash_updater *updater,
                                          struct twinflash_error *error);

/**
 * Waits until everything that was decided so far is done and durable: after twinflash_updater_pause the
 * download has stopped, and its last bytes are safe. TWINFLASH_STATUS_STATE: it could not be saved (and
 * is tried again), or not within `timeout_ms` milliseconds (negative: waits for ever). In a callback:
 * TWINFLASH_STATUS_IN_CALLBACK.
 */
twinflash_status twinflash_updater_flush(const struct twinflash_updater *updater,
                                         int64_t timeout_ms,
                                         struct twinflash_error *error);

/**
 * Starts to connect an updater to its hub; returns at once. It stays connected, with a renewed token
 * and after every failure, until twinflash_device_free. Events of the connection come with the
 * updater's; what was set to get what is to be sent gets nothing any more.
 *
 * `connection_string` may be NULL where the configuration has "connection_string"; "@FILE" stands for
 * what that file holds. The hub's certificate authorities are the configuration's ("ca"), and so is the
 * certificate ("client_certificate", "client_key") of a device whose connection string says `x509=true`.
 * `on_method` may be NULL. `destroy` frees `user_data`, in every case, once `on_method` is not called any more.
 * An updater has one device in its life: TWINFLASH_STATUS_ALREADY_SET. Neither this nor
 * twinflash_device_free is in a library built without MQTT.
 */
twinflash_status twinflash_device_connect(const struct twinflash_updater *updater,
                                          const char *connection_string,
                                          twinflash_method_callback on_method,
                                          void *user_data,
                                          twinflash_destroy_callback destroy,
                                          struct twinflash_device **device,
                                          struct twinflash_error *error);

/**
 * Ends the connection, closes the updater and frees the device; the updater is still to be freed. NULL
 * is fine. Returns within a second. In a callback: TWINFLASH_STATUS_IN_CALLBACK, and nothing happens.
 */
twinflash_status twinflash_device_free(struct twinflash_device *device);

/** Frees an event from twinflash_updater_next_event. NULL is fine. Any thread. */
void twinflash_event_free(struct twinflash_event *event);

/**
 * Counts a start of a new version that has to prove itself, and brings the old one back when it has
 * used up its starts. To be called as a program's first line, before anything of it can fail: an
 * updater in the program it updates cannot roll back when that program does not come to start it.
 * `*guarded` says what was done, `*starts` how many starts were counted, this one among them, of
 * `*allowed` (0 where none was); each may be NULL. For the installers of the library; the application's
 * own cannot be made here.
 */
twinflash_status twinflash_guard(const char *state_dir,
                                 twinflash_guarded *guarded,
                                 uint32_t *starts,
                                 uint32_t *allowed,
                                 struct twinflash_error *error);

/** Reads an image's size and check values from its file, in constant memory. Blocks. Any thread. */
twinflash_status twinflash_image_info(const char *path,
                                      struct twinflash_digests *info,
                                      struct twinflash_error *error);

/**
 * Whether an image passes a check value, in any form a request may have: "31c3" or "crc16:31c3"
 * (CRC-16), "cbf43926" (CRC-32), 64 hexadecimal digits (SHA-256). TWINFLASH_STATUS_OK if it does;
 * TWINFLASH_STATUS_CRC_MISMATCH or TWINFLASH_STATUS_HASH_MISMATCH if not;
 * TWINFLASH_STATUS_INVALID_CHECK if it is no check value. Blocks. Any thread.
 */
twinflash_status twinflash_image_verify(const char *path,
                                        const char *check,
                                        struct twinflash_error *error);

/**
 * A direct method was called. TWINFLASH_STATUS_NOT_MINE where it is not one of the updater's: it is the
 * application's to answer then, and `*answer` says status 404. Otherwise `*answer` is to be sent.
 *
 * Returns at once, but for a method that starts an update: then it waits until the hub has the first
 * report (twinflash_updater_report_done was called) or two seconds have passed, so that no back end
 * reads the last update's outcome. Where the same thread serves the network, as in the loop of
 * azure-iot-sdk-c's IoTHubDeviceClient_LL_DoWork, set "policy.answer_wait" to 0: then it waits only
 * until that report is handed over, and what waits in twinflash_updater_next_outbound is to be sent
 * before the answer. A callback for what is to be sent has been called with it by then.
 * In a callback of the updater it returns TWINFLASH_STATUS_IN_CALLBACK.
 *
 * `payload` need not end with a zero; NULL with length 0 is an empty one.
 */
twinflash_status twinflash_updater_handle_method(const struct twinflash_updater *updater,
                                                 const char *name,
                                                 const void *payload,
                                                 size_t length,
                                                 struct twinflash_answer *answer,
                                                 struct twinflash_error *error);

/**
 * As twinflash_updater_handle_method, without any wait, and to be called anywhere: `callback` gets the
 * answer, on this thread before this returns, or later on the updater's own (there the rules of
 * twinflash_event_callback hold). It is called once where this returns TWINFLASH_STATUS_OK, and not at
 * all otherwise.
 */
twinflash_status twinflash_updater_handle_method_then(const struct twinflash_updater *updater,
                                                      const char *name,
                                                      const void *payload,
                                                      size_t length,
                                                      twinflash_answer_callback callback,
                                                      void *user_data,
                                                      struct twinflash_error *error);

/**
 * A twin was read (`complete`, {"desired": …, "reported": …}), or its desired properties were patched.
 * What is no JSON is ignored, with a warning as an event. Never waits. `json` need not end with a zero.
 */
twinflash_status twinflash_updater_handle_twin(const struct twinflash_updater *updater,
                                               bool complete,
                                               const void *json,
                                               size_t length,
                                               struct twinflash_error *error);

/**
 * The twin could not be read: the hub refused what TWINFLASH_OUTBOUND_KIND_READ_TWIN asked for. It is
 * asked for again after a pause; without this, after a minute. Never waits.
 */
twinflash_status twinflash_updater_twin_failed(const struct twinflash_updater *updater,
                                               struct twinflash_error *error);

/** The hub is connected, or no longer. Never waits. */
twinflash_status twinflash_updater_connected(const struct twinflash_updater *updater,
                                             bool connected,
                                             struct twinflash_error *error);

/** A report's result: the hub's status, such as 204, or 0 if the report was lost. Never waits. */
twinflash_status twinflash_updater_report_done(const struct twinflash_updater *updater,
                                               uint64_t id,
                                               int32_t status,
                                               struct twinflash_error *error);

/** Frees what twinflash_updater_next_wanted gave. NULL is fine. Any thread. */
void twinflash_wanted_free(struct twinflash_wanted *wanted);

/**
 * What the application is to fetch now, to be given to twinflash_wanted_free; TWINFLASH_STATUS_TIMEOUT
 * and NULL when there was nothing new within `timeout_ms` milliseconds (0: does not wait; negative:
 * waits for ever), TWINFLASH_STATUS_CLOSED once the updater is closed. The configuration's key
 * "source" is "offered" then; so it always is in a library built without HTTP. The application asks its
 * server, and calls twinflash_updater_offer_response, then twinflash_updater_offer for the bytes, then
 * twinflash_updater_offer_end; or twinflash_updater_offer_failed. Whether there is another attempt,
 * from which byte on, and all checks, limits and stalls stay the updater's.
 */
twinflash_status twinflash_updater_next_wanted(const struct twinflash_updater *updater,
                                               int64_t timeout_ms,
                                               struct twinflash_wanted **wanted,
                                               struct twinflash_error *error);

/**
 * What the server answered, once for each wish, before its bytes. TWINFLASH_STATUS_NOT_WANTED: the wish
 * with this id is no more, or was answered before. An answer that does not fit, as another size than
 * the request announced, ends the attempt: the next call says TWINFLASH_STATUS_NOT_WANTED. Never waits.
 */
twinflash_status twinflash_updater_offer_response(const struct twinflash_updater *updater,
                                                  uint64_t id,
                                                  const struct twinflash_response *response,
                                                  struct twinflash_error *error);

/**
 * The next bytes; `offset` is where in the whole the first of them belongs. `*taken` says how many were
 * taken, from the first on: fewer than there are, or none, where the updater cannot hash and write
 * them as fast. The others are to be offered again a little later. It waits for room for the first at
 * most `timeout_ms` milliseconds (0: does not wait; negative: waits for ever).
 * TWINFLASH_STATUS_NOT_WANTED: they are not wanted any more: end the request, and ask what is. So a
 * request to a server that is silent is to be looked after by a call with `length` 0 now and then.
 * TWINFLASH_STATUS_INVALID_ARGUMENT: they are not the next ones, or the answer was not offered before.
 */
twinflash_status twinflash_updater_offer(const struct twinflash_updater *updater,
                                         uint64_t id,
                                         uint64_t offset,
                                         const void *data,
                                         size_t length,
                                         int64_t timeout_ms,
                                         size_t *taken,
                                         struct twinflash_error *error);

/**
 * The body is at its end. Need not be said where the response told the total and all came. Nothing
 * happens where this wish is no more. Never waits.
 */
twinflash_status twinflash_updater_offer_end(const struct twinflash_updater *updater,
                                             uint64_t id,
                                             struct twinflash_error *error);

/**
 * The bytes could not be fetched, or not to their end. `status` is TWINFLASH_STATUS_NETWORK for a
 * connection, TWINFLASH_STATUS_TLS for its certificate, or another failure's. `why` goes on from
 * "cannot download …: ", and holds no secret. `again`: another attempt makes sense, after a pause. Nothing
 * happens where this wish is no more. Never waits.
 */
twinflash_status twinflash_updater_offer_failed(const struct twinflash_updater *updater,
                                                uint64_t id,
                                                int32_t status,
                                                const char *why,
                                                bool again,
                                                struct twinflash_error *error);

/** Frees what came from twinflash_updater_next_outbound. NULL is fine. Any thread. */
void twinflash_outbound_free(struct twinflash_outbound *outbound);

/** Frees a state from twinflash_updater_state. NULL is fine. Any thread. */
void twinflash_state_free(struct twinflash_state *state);

/**
 * The name of a status: of a failure, what the device's twin shows, such as "http-status". "unknown"
 * for a number that is none. Never NULL, never freed. Any thread.
 */
const char *twinflash_status_name(int32_t status);

/**
 * The next thing to be sent to the hub, to be given to twinflash_outbound_free;
 * TWINFLASH_STATUS_TIMEOUT and NULL when there was none within `timeout_ms` milliseconds (0: does not
 * wait; negative: waits for ever), TWINFLASH_STATUS_CLOSED once the updater is closed. Only where
 * there is no callback for it and no twinflash_device.
 */
twinflash_status twinflash_updater_next_outbound(const struct twinflash_updater *updater,
                                                 int64_t timeout_ms,
                                                 struct twinflash_outbound **outbound,
                                                 struct twinflash_error *error);

/**
 * The next event, to be given to twinflash_event_free; waits as twinflash_updater_next_outbound does.
 * Only where there is no callback for events. Who is more than 1000 behind loses the oldest.
 */
twinflash_status twinflash_updater_next_event(const struct twinflash_updater *updater,
                                              int64_t timeout_ms,
                                              struct twinflash_event **event,
                                              struct twinflash_error *error);

/**
 * A descriptor that poll() and select() report as readable while something waits in
 * twinflash_updater_next_outbound, and once the updater is closed. It is the updater's: do not read
 * from it, do not close it. -1 where `updater` is NULL.
 */
int32_t twinflash_updater_outbound_descriptor(const struct twinflash_updater *updater);

/** As twinflash_updater_outbound_descriptor, for twinflash_updater_next_event. */
int32_t twinflash_updater_event_descriptor(const struct twinflash_updater *updater);

/** Where everything stands, to be given to twinflash_state_free. Never waits. */
twinflash_status twinflash_updater_state(const struct twinflash_updater *updater,
                                         struct twinflash_state **state,
                                         struct twinflash_error *error);

/**
 * Waits until an update has ended, none runs, and the hub has been told (if it is connected);
 * `*outcome` (may be NULL) is durable then. TWINFLASH_STATUS_TIMEOUT when there was no end within
 * `timeout_ms` milliseconds (negative: waits for ever), TWINFLASH_STATUS_CLOSED once the updater is closed.
 * Not on the thread that serves the network, and not in a callback: TWINFLASH_STATUS_IN_CALLBACK.
 */
twinflash_status twinflash_updater_wait(const struct twinflash_updater *updater,
                                        int64_t timeout_ms,
                                        twinflash_outcome *outcome,
                                        struct twinflash_error *error);

/**
 * Stops with a checkpoint and gives the state directory back, within a second, whatever network and
 * disk do. Everything after it does nothing; what would have to says TWINFLASH_STATUS_CLOSED. In a
 * callback: TWINFLASH_STATUS_IN_CALLBACK.
 */
twinflash_status twinflash_updater_close(const struct twinflash_updater *updater,
                                         struct twinflash_error *error);

/**
 * Closes an updater and frees it. NULL is fine. In a callback: TWINFLASH_STATUS_IN_CALLBACK, and it is
 * not freed. A twinflash_device on it is to be freed before it; otherwise the updater goes on until
 * that is.
 *
 * Returns within a second, though a callback or a function of the installer may take longer: it still
 * runs then. Its `destroy` is called when it has ended, and is where to free what it uses.
 */
twinflash_status twinflash_updater_free(struct twinflash_updater *updater);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TWINFLASH_H */
