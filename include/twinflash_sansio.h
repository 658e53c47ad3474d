#ifndef TWINFLASH_SANSIO_H
#define TWINFLASH_SANSIO_H

/* Made from the sources in bindings/sansio/src by `cargo xtask header`: do not edit. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/**
 * twinflash for boards: the update engine for firmware without an operating system. No files, no
 * threads, no sockets, no clock: the application has all of these, in one loop of its own:
 *
 *     twinflash_sansio_new(&config, &board, now(), &engine);
 *     for (;;) {
 *         twinflash_sansio_output output;
 *         while (twinflash_sansio_poll(engine, now(), &output))
 *             switch (output.kind) {
 *             case TWINFLASH_SANSIO_KIND_REPORT: ...    send output.text to the hub
 *             case TWINFLASH_SANSIO_KIND_READ_TWIN: ... ask the hub for the twin
 *             case TWINFLASH_SANSIO_KIND_FETCH: ...     ask a server for output.text
 *             case TWINFLASH_SANSIO_KIND_RESTART: ...   reset
 *             }
 *         wait for the network, until twinflash_sansio_wake_at(engine) at most, and hand over what came:
 *         twinflash_sansio_connected, _twin, _report_done; _answered, _bytes, _ended
 *     }
 *
 * examples/c/board.c is such a program. An image is checked (size, CRC-16, CRC-32, SHA-256) while its
 * bytes come, is activated only where all checks hold, and has to prove itself after the restart. What
 * is remembered of it is saved before each step, in two copies written in turn: a power cut at any
 * moment, also in the middle of a save or of a write, loses at most the bytes since the last checkpoint.
 *
 * Rules that hold everywhere:
 *
 * - What is handed in stays the caller's, and is copied where it is needed longer than the call.
 * - Texts are UTF-8 and end with a zero, but where a length is given. Lengths are in bytes.
 * - NULL where it may not be is an error, not a crash. A pointer to something freed is not noticed.
 * - Different engines may be used from different threads at once, one engine from one at a time.
 * - The library needs malloc, calloc, realloc, free, abort, and the mem functions of C.
 *   An engine has some 20 KiB while it waits, and twice that for moments; where there is no memory
 *   left, it calls abort().
 */

/** This header's version; twinflash_sansio_version() is the library's. */
#define TWINFLASH_SANSIO_VERSION "0.1.0"
#define TWINFLASH_SANSIO_VERSION_MAJOR 0
#define TWINFLASH_SANSIO_VERSION_MINOR 1
#define TWINFLASH_SANSIO_VERSION_PATCH 0

/** A length that is not known, and a time that never comes. */
#define TWINFLASH_SANSIO_UNKNOWN 18446744073709551615ull

/**
 * What became of a call. The numbers are those of twinflash_status in twinflash.h, which has more;
 * failures from 100 on are described there.
 */
enum twinflash_sansio_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** Done. */
    TWINFLASH_SANSIO_STATUS_OK = 0,
    /** The direct method is not one of the engine's: it is the application's to answer. */
    TWINFLASH_SANSIO_STATUS_NOT_MINE = 1,
    /** Nothing is being fetched, or no longer: close the connection to the server. */
    TWINFLASH_SANSIO_STATUS_CLOSED = 3,
    /** A pointer is NULL that may not be. */
    TWINFLASH_SANSIO_STATUS_NULL_ARGUMENT = 10,
    /** A text is not UTF-8. */
    TWINFLASH_SANSIO_STATUS_INVALID_UTF8 = 11,
    /** An argument has a value it cannot have. */
    TWINFLASH_SANSIO_STATUS_INVALID_ARGUMENT = 12,
    /** It was called in a function of the board, which may call none. */
    TWINFLASH_SANSIO_STATUS_IN_CALLBACK = 15,
    /** A board's functions may give this: its memory is worn out, or does not answer. */
    TWINFLASH_SANSIO_STATUS_STORAGE = 402,
    /** The contract or another part of the configuration is wrong. */
    TWINFLASH_SANSIO_STATUS_INVALID_CONFIG = 602,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum twinflash_sansio_status twinflash_sansio_status;
#else
typedef int32_t twinflash_sansio_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** What is to be done. */
enum twinflash_sansio_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** Nothing, until twinflash_sansio_wake_at or until something comes in. */
    TWINFLASH_SANSIO_KIND_NOTHING = 0,
    /**
     * Send `text`, a patch of the reported properties, to the hub; then call
     * twinflash_sansio_report_done with `id`.
     */
    TWINFLASH_SANSIO_KIND_REPORT = 1,
    /** Read the twin, then call twinflash_sansio_twin or twinflash_sansio_twin_failed. */
    TWINFLASH_SANSIO_KIND_READ_TWIN = 2,
    /** Answer the method of this `id` with `status` and `text`, which is JSON. */
    TWINFLASH_SANSIO_KIND_ANSWER = 3,
    /**
     * Ask a server for the image at `text`, a URI; from byte `offset` on, where that is not 0 ("Range:
     * bytes=OFFSET-"), under the condition `validator`, where that is not NULL ("If-Range:
     * VALIDATOR"). Then call twinflash_sansio_answered, twinflash_sansio_bytes and
     * twinflash_sansio_ended, or twinflash_sansio_broken. Where `https_only` is set no redirect may lead
     * to http. What the URI's query has is secret.
     */
    TWINFLASH_SANSIO_KIND_FETCH = 4,
    /** Close the connection to the server. */
    TWINFLASH_SANSIO_KIND_STOP_FETCH = 5,
    /** Restart the board now. Call twinflash_sansio_restart_failed where that is not possible. */
    TWINFLASH_SANSIO_KIND_RESTART = 6,
    /** The update has come to `phase`. From here on: for the application to know, nothing to be done. */
    TWINFLASH_SANSIO_KIND_PHASE = 20,
    /**
     * `offset` of `size` bytes (0: not known) are there. At most ten a second, and one as an attempt ends.
     */
    TWINFLASH_SANSIO_KIND_PROGRESS = 21,
    /** The update ended by `outcome`, with `status` and `text` where that is no success. */
    TWINFLASH_SANSIO_KIND_ENDED = 22,
    /** An attempt at the download failed, and is made again; `status` and `text` say why. */
    TWINFLASH_SANSIO_KIND_RETRY = 23,
    /** A request was refused; `status` and `text` say why. */
    TWINFLASH_SANSIO_KIND_REFUSED = 24,
    /** `text` is something a person should look at. */
    TWINFLASH_SANSIO_KIND_WARNING = 25,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum twinflash_sansio_kind twinflash_sansio_kind;
#else
typedef int32_t twinflash_sansio_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** How a new version proves itself. */
enum twinflash_sansio_confirm
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** It reaches its hub: a twin was read or a report acknowledged since it runs. */
    TWINFLASH_SANSIO_CONFIRM_CONNECTED = 0,
    /** The application calls twinflash_sansio_confirm_now. */
    TWINFLASH_SANSIO_CONFIRM_CALL = 1,
    /** It need not. */
    TWINFLASH_SANSIO_CONFIRM_NONE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum twinflash_sansio_confirm twinflash_sansio_confirm;
#else
typedef int32_t twinflash_sansio_confirm;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** Which image runs. */
enum twinflash_sansio_image
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** The old one: the one written last is not activated, or was rolled back. */
    TWINFLASH_SANSIO_IMAGE_OLD = 0,
    /** The one written last. */
    TWINFLASH_SANSIO_IMAGE_NEW = 1,
    /** It cannot be told. */
    TWINFLASH_SANSIO_IMAGE_UNKNOWN = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum twinflash_sansio_image twinflash_sansio_image;
#else
typedef int32_t twinflash_sansio_image;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** An engine with its board. Not to be used by two threads at once. */
typedef struct twinflash_sansio twinflash_sansio;

/** The checks an image must pass, computed while its bytes stream by. About 300 bytes. */
typedef struct twinflash_sansio_checks twinflash_sansio_checks;

/** What an engine is made with. Zeros are the defaults. */
typedef struct twinflash_sansio_config {
    /** sizeof(twinflash_sansio_config): later versions have more members at its end. */
    size_t size;
    /** A built-in contract's name, such as "devkit", or the JSON of one of your own. Not NULL. */
    const char *contract;
    /** The version that runs now; NULL where only the record knows, which has the last one confirmed. */
    const char *current_version;
    /**
     * Another number at each start, such as a hardware random number, or a count of starts. It tells
     * starts from each other, and makes the pauses of this device differ from others'.
     */
    uint64_t seed;
    /** The largest image, in bytes; 0: 4 GiB. */
    uint64_t max_size;
    /** Bytes between two checkpoints of a download; 0: 64 KiB. There is one each second in any case. */
    uint64_t checkpoint_bytes;
    /** A twinflash_sansio_confirm. */
    int32_t confirm;
    /** Seconds the new version has to prove itself; 0: 300. */
    uint32_t confirm_seconds;
    /** Starts it has for that; 0: 3. */
    uint32_t confirm_starts;
    /** http: addresses are let in, with a check. */
    bool allow_http;
    /** A request must carry a check, even where its contract does not ask for one. */
    bool require_check;
    /**
     * The answer to a method goes out with the first report, without waiting for its
     * acknowledgement: for a hub's client whose callback must return the answer.
     */
    bool answer_at_once;
    /** The image is used with no restart of the board. */
    bool no_restart;
    /**
     * With keys, nothing is installed but what they have signed, by a manifest that is part of the
     * request: a key set as JSON, {"version":1,"threshold":1,"keys":["MCow…"]}. A key is what stands
     * between the lines BEGIN and END of a public key's PEM (Ed25519 or P-256); `threshold` is how many of
     * them must sign. NULL: no keys. The library must be built with the feature `signed`.
     */
    const char *trust;
    /** What the device is, for manifests that are not for all. May be NULL. */
    const char *manufacturer;
    /** As `manufacturer`. */
    const char *model;
    /** As `manufacturer`. */
    const char *hardware_revision;
} twinflash_sansio_config;

/**
 * The functions of the board. Each is called inside a function of the engine, on its thread, and may
 * take its time; none may call the engine. They return 0, or a failure's number, such as
 * TWINFLASH_SANSIO_STATUS_STORAGE. All but `write` may be called again after a power cut in the middle
 * of them, and must end the same. What is not said to be optional must be there.
 */
typedef struct twinflash_sansio_board {
    /** sizeof(twinflash_sansio_board): later versions have more members at its end. */
    size_t size;
    /** Given to each function. */
    void *user_data;
    /**
     * Where one of the two copies (0 and 1) of the record lies: `*bytes` and how many can be read
     * there, until the next call. It may be more than was saved, such as a whole sector; 0 where there is
     * nothing.
     */
    int32_t (*load)(void *user_data, int32_t copy, const uint8_t **bytes, size_t *length);
    /**
     * Replaces a copy, durably. A power cut may leave it in any state, and must leave the other one
     * alone: two sectors, or two files. A record has 2 to 16 KiB.
     */
    int32_t (*save)(void *user_data, int32_t copy, const uint8_t *bytes, size_t length);
    /**
     * Which image runs: TWINFLASH_SANSIO_IMAGE_NEW where it is the one written last, also once it is
     * confirmed (power may fail before that is saved); TWINFLASH_SANSIO_IMAGE_OLD where it is the other.
     * From `begin` on the new one is the one being written, which does not run.
     */
    int32_t (*inspect)(void *user_data, int32_t *image);
    /**
     * An image is going to be written, of `size` bytes (0: not known): erases what it needs.
     * `resume_at` bytes of it were synced before; `*start_at` is to be set to that, or to 0 where they
     * are not there any more.
     */
    int32_t (*begin)(void *user_data, uint64_t size, uint64_t resume_at, uint64_t *start_at);
    /** Writes bytes of the image; they follow each other without gaps. */
    int32_t (*write)(void *user_data, uint64_t offset, const uint8_t *bytes, size_t length);
    /** Makes durable what was written, and sets `*durable` to how many bytes of the image are. */
    int32_t (*sync)(void *user_data, uint64_t *durable);
    /**
     * Every byte is there and passed its checks. To be read back and compared here, by a board that
     * does not trust its flash: twinflash_sansio_checks. May be NULL.
     */
    int32_t (*finish)(void *user_data, uint64_t size, const uint8_t *sha256);
    /** From the next start on the new image runs. */
    int32_t (*activate)(void *user_data);
    /** The new image has proved itself: it is now the old one. */
    int32_t (*confirm)(void *user_data);
    /** From the next start on the old image runs. */
    int32_t (*rollback)(void *user_data);
    /** The update ended before it was activated: what was written may go. May be NULL. */
    int32_t (*abort)(void *user_data);
    /**
     * Sets `*holds` where the image that runs has this SHA-256 (32 bytes). May be NULL: then one that
     * is asked for again is fetched again.
     */
    int32_t (*holds)(void *user_data, const uint8_t *sha256, bool *holds);
} twinflash_sansio_board;

/** The two clocks. Every function that has a say in time takes them. */
typedef struct twinflash_sansio_now {
    /** Milliseconds that only ever grow, since the start for example. */
    uint64_t monotonic;
    /**
     * Milliseconds since 1970, believable or not; 0 where there is no clock. It makes the time stamps
     * of the reports.
     */
    uint64_t wall;
} twinflash_sansio_now;

/** Something to be done. What it points to lives until the next call of twinflash_sansio_poll. */
typedef struct twinflash_sansio_output {
    /** A twinflash_sansio_kind, which says what the others mean. */
    int32_t kind;
    /** Of a method's answer, its status such as 200; of an event, a failure's number. */
    int32_t status;
    /** A report's, or a method's. */
    uint64_t id;
    /** Never NULL; a zero follows it. */
    const char *text;
    /** Its length in bytes, without the zero. */
    size_t length;
    /** May be NULL; a zero follows it. */
    const char *validator;
    /** In bytes. */
    uint64_t offset;
    /** In bytes; 0 where it is not known. */
    uint64_t size;
    /**
     * 1 waiting, 2 downloading, 3 verifying, 4 applying, 5 rebooting, 6 confirming, 7 rolling back; 0:
     * no update runs. As twinflash_phase in twinflash.h.
     */
    int32_t phase;
    /**
     * 1 completed, 2 up to date, 3 failed, 4 rolled back, 5 cancelled, 6 superseded, 7 another one; 0:
     * none ended yet. As twinflash_outcome in twinflash.h.
     */
    int32_t outcome;
    /** Only https is allowed. */
    bool https_only;
} twinflash_sansio_output;

/** Where everything stands. */
typedef struct twinflash_sansio_state {
    /** As in twinflash_sansio_output. */
    int32_t phase;
    /** As in twinflash_sansio_output. */
    int32_t outcome;
    /** Why the last update ended so: a failure's number, 0 where there is none. */
    int32_t status;
    /** The download is paused. */
    bool paused;
    /** Bytes of the image that are there. */
    uint64_t bytes;
    /** The image's size in bytes; 0 where it is not known. */
    uint64_t size;
} twinflash_sansio_state;

/** What the checks come to. */
typedef struct twinflash_sansio_digests {
    /** CRC-16/XMODEM */
    uint16_t crc16;
    /** CRC-32/ISO-HDLC, as zip has it */
    uint32_t crc32;
    /** SHA-256 */
    uint8_t sha256[32];
} twinflash_sansio_digests;

/** What a server answered, before the body. */
typedef struct twinflash_sansio_answer {
    /** HTTP's status, such as 200 or 206. Where the image comes in another way: 200. */
    int32_t status;
    /** Seconds of "Retry-After"; 0 where there are none. */
    uint32_t retry_after;
    /** "Content-Length" in bytes; TWINFLASH_SANSIO_UNKNOWN where the server does not say it. */
    uint64_t length;
    /** "Content-Range", or NULL. */
    const char *range;
    /** "ETag", with its quotation marks, or NULL. */
    const char *etag;
} twinflash_sansio_answer;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/** The library's version, such as "0.1.0". Never freed. */
const char *twinflash_sansio_version(void);

/**
 * Makes an engine: reads the record through the board, asks which image runs, and goes on with what
 * was begun. `*engine` is to be given to twinflash_sansio_free, and is NULL where this fails: with
 * TWINFLASH_SANSIO_STATUS_INVALID_CONFIG where the contract or `trust` is wrong,
 * TWINFLASH_SANSIO_STATUS_INVALID_ARGUMENT where a `size` or another value is, or _NULL_ARGUMENT where a
 * function of the board is missing. Both tables are copied.
 */
twinflash_sansio_status twinflash_sansio_new(const struct twinflash_sansio_config *config,
                                             const struct twinflash_sansio_board *board,
                                             struct twinflash_sansio_now now,
                                             struct twinflash_sansio **engine);

/** Frees an engine. NULL is fine. What was saved stays: the next start goes on. */
void twinflash_sansio_free(struct twinflash_sansio *engine);

/**
 * The next thing to be done; false where there is nothing (`output->kind` says so, too). To be called
 * until then after each other function, and at twinflash_sansio_wake_at. The board's flash is written
 * and activated in here.
 */
bool twinflash_sansio_poll(struct twinflash_sansio *engine,
                           struct twinflash_sansio_now now,
                           struct twinflash_sansio_output *output);

/**
 * When twinflash_sansio_poll is to be called at the latest, on the monotonic clock in milliseconds;
 * TWINFLASH_SANSIO_UNKNOWN where nothing is waited for but what comes in.
 */
uint64_t twinflash_sansio_wake_at(const struct twinflash_sansio *engine);

/** The hub is connected, or no longer. */
twinflash_sansio_status twinflash_sansio_connected(struct twinflash_sansio *engine,
                                                   bool connected,
                                                   struct twinflash_sansio_now now);

/**
 * A twin was read (`complete`, {"desired": …, "reported": …}), or its desired properties were patched.
 * What is no JSON is ignored, with a warning.
 */
twinflash_sansio_status twinflash_sansio_twin(struct twinflash_sansio *engine,
                                              bool complete,
                                              const void *json,
                                              size_t length,
                                              struct twinflash_sansio_now now);

/** The hub refused to have the twin read. It is asked for again after a pause. */
twinflash_sansio_status twinflash_sansio_twin_failed(struct twinflash_sansio *engine,
                                                     struct twinflash_sansio_now now);

/**
 * A direct method was called: TWINFLASH_SANSIO_KIND_ANSWER with this `id` follows.
 * TWINFLASH_SANSIO_STATUS_NOT_MINE where it is the application's to answer. `payload` may be NULL.
 */
twinflash_sansio_status twinflash_sansio_method(struct twinflash_sansio *engine,
                                                uint64_t id,
                                                const char *name,
                                                const void *payload,
                                                size_t length,
                                                struct twinflash_sansio_now now);

/** A report's result: the hub's status, such as 204, or 0 if the report was lost. */
twinflash_sansio_status twinflash_sansio_report_done(struct twinflash_sansio *engine,
                                                     uint64_t id,
                                                     int32_t status,
                                                     struct twinflash_sansio_now now);

/** The application says that the new version is good. */
twinflash_sansio_status twinflash_sansio_confirm_now(struct twinflash_sansio *engine,
                                                     struct twinflash_sansio_now now);

/** Cancels the update that runs. One that is being applied goes on. */
twinflash_sansio_status twinflash_sansio_cancel(struct twinflash_sansio *engine,
                                                struct twinflash_sansio_now now);

/**
 * Pauses the download of the update that runs, also over a restart; or goes on with it, at once also
 * where it waits for its next attempt.
 */
twinflash_sansio_status twinflash_sansio_pause(struct twinflash_sansio *engine,
                                               bool paused,
                                               struct twinflash_sansio_now now);

/** The restart that was asked for is not possible now; it is asked for again in a minute. */
twinflash_sansio_status twinflash_sansio_restart_failed(struct twinflash_sansio *engine,
                                                        struct twinflash_sansio_now now);

/** Where everything stands. */
twinflash_sansio_status twinflash_sansio_state_of(const struct twinflash_sansio *engine,
                                                  struct twinflash_sansio_state *state);

/**
 * Starts checks over no bytes yet; NULL if there is no memory. To be given to
 * twinflash_sansio_checks_free.
 */
struct twinflash_sansio_checks *twinflash_sansio_checks_new(void);

/** Takes the image's next `length` bytes. */
void twinflash_sansio_checks_update(struct twinflash_sansio_checks *checks,
                                    const void *data,
                                    size_t length);

/** Writes to `digests` what the checks come to over all bytes so far. More may follow. */
void twinflash_sansio_checks_finish(const struct twinflash_sansio_checks *checks,
                                    struct twinflash_sansio_digests *digests);

/** Frees checks. NULL is fine. */
void twinflash_sansio_checks_free(struct twinflash_sansio_checks *checks);

/**
 * Whether an image with these digests passes a request's check value (`length` bytes of text, no zero
 * needed), such as "31c3", "crc32:cbf43926" or 64 hex digits of SHA-256. 1: it does; 0: it does not;
 * negative, the failure code invalid-check: the value is none.
 */
int twinflash_sansio_check_matches(const void *value,
                                   size_t length,
                                   const struct twinflash_sansio_digests *digests);

/**
 * The server of the image has answered. TWINFLASH_SANSIO_STATUS_CLOSED where its bytes are of no use:
 * close the connection. So do the next two.
 */
twinflash_sansio_status twinflash_sansio_answered(struct twinflash_sansio *engine,
                                                  const struct twinflash_sansio_answer *answer,
                                                  struct twinflash_sansio_now now);

/** Bytes of the image have come. They are checked and written before this returns; any number at once. */
twinflash_sansio_status twinflash_sansio_bytes(struct twinflash_sansio *engine,
                                               const void *bytes,
                                               size_t length,
                                               struct twinflash_sansio_now now);

/** The body is at its end, as far as the transport can tell. */
twinflash_sansio_status twinflash_sansio_ended(struct twinflash_sansio *engine,
                                               struct twinflash_sansio_now now);

/**
 * The server cannot be reached, or the connection broke: another attempt is made after a pause, and
 * goes on where this one stopped. `why` is for people; it may be NULL, and holds no secret. `tls`: it was
 * its certificate that was refused.
 */
twinflash_sansio_status twinflash_sansio_broken(struct twinflash_sansio *engine,
                                                bool tls,
                                                const char *why,
                                                struct twinflash_sansio_now now);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TWINFLASH_SANSIO_H */
