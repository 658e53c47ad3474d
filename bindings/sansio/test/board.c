/* A board goes through whole updates with the DevKit's contract, and loses its power before, in the
 * middle of, and after every change of its flash. Flash and boot loader are those of
 * examples/c/board_flash.h; hub, server and time are made here.
 *
 * board DIRECTORY [FULL]: with a second argument every power cut is followed by every other one.
 * With SIGNED: board --image DIRECTORY writes the image, which is to be signed. */
#define FLASH_BANK_SECTORS 5
#include "board_flash.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define CHECK(condition)                                                                              \
    do {                                                                                              \
        if (!(condition)) {                                                                           \
            fprintf(stderr, "%s:%d: not so: %s (%s, cuts %ld and %ld)\n", __FILE__, __LINE__,         \
                #condition, course->name, shared->first, shared->second);                             \
            _exit(1);                                                                                 \
        }                                                                                             \
    } while (0)

enum { SIZE = 150001, CHUNK = 9000, COMPLETED = 20, RESTART = 7, POWER = 9 };

/* How an update goes. */
typedef struct course {
    const char *name;
    const char *check; /* instead of the image's */
    long size;         /* what is announced */
    bool breaks;       /* the server breaks off, again and again */
    bool changes;      /* and has another image each time, of the same size: nothing may be appended */
    bool dead;         /* the new version never reaches its hub */
    bool worn_out;     /* the bank cannot be written */
    int32_t outcome, status;
    const char *says;  /* in the last report */
    const char *manifest; /* its file */
} course_t;

#ifdef SIGNED
#define COURSE(name, manifest, outcome, status, says) \
    { name, NULL, SIZE, false, false, false, false, outcome, status, says, manifest }

/* Against a library that verifies signatures, with a key in its configuration. */
static const course_t courses[] = {
    COURSE("signed", "owner.jws", 1, 0, "\"fwUpdateStatus\":\"Current\""),
    COURSE("signed by another", "other.jws", 3, 152, "\"fwUpdateStatus\":\"Error\""),
    COURSE("not signed", NULL, 3, 150, "\"fwUpdateStatus\":\"Error\""),
};
#else
#define COURSE(name, check, size, breaks, changes, dead, worn_out, outcome, status, says) \
    { name, check, size, breaks, changes, dead, worn_out, outcome, status, says, NULL }
static const course_t courses[] = {
    COURSE("good", NULL, SIZE, false, false, false, false, 1, 0, "\"fwUpdateStatus\":\"Current\""),
    COURSE("breaking off", NULL, SIZE, true, false, false, false, 1, 0, "\"fwUpdateStatus\":\"Current\""),
    COURSE("another image each time", NULL, SIZE, true, true, false, false, 1, 0,
        "\"fwUpdateStatus\":\"Current\""),
    COURSE("dead", NULL, SIZE, false, false, true, false, 4, 404, "\"fwUpdateSubstatus\":\"ApplyFirmwareFailed\""),
    COURSE("wrong check", "1234", SIZE, false, false, false, false, 3, 301, "\"fwUpdateSubstatus\":\"VerifyFailed\""),
    COURSE("wrong size", NULL, SIZE - 1, false, false, false, false, 3, 300, "\"fwUpdateSubstatus\":\"FileSizeNotMatch\""),
    COURSE("worn out", NULL, SIZE, false, false, false, true, 3, 402, "\"fwUpdateSubstatus\":\"DeviceError\""),
    COURSE("not https", NULL, 0, false, false, false, false, 3, 102, "\"fwUpdateSubstatus\":\"URINotHTTPS\""),
};
#endif

/* What outlives a power cut, and is no part of the board. */
static struct shared {
    long cut, first, second;
    int starts, attempts;
    char report[16384]; /* all of them, the last one last */
    size_t reported;
} *shared;

static const course_t *course;
static uint8_t image[SIZE], old[FLASH_SECTOR];
static char desired[4096], trust[512];
static const char *directory = "";

/* The text in a file of the directory. */
static void read_text(const char *name, char *text, size_t size)
{
    char path[512];
    size_t length;
    FILE *file;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    file = fopen(path, "r");
    CHECK(file != NULL);
    length = fread(text, 1, size - 1, file);
    CHECK(length > 0 && length < size - 1 && fclose(file) == 0);
    text[strcspn(text, "\n")] = 0;
}

static void make_desired(void)
{
    char check[8], manifest[2048] = "", member[2100] = "";
    twinflash_sansio_digests digests;
    twinflash_sansio_checks *checks = twinflash_sansio_checks_new();
    twinflash_sansio_checks_update(checks, image, sizeof image);
    twinflash_sansio_checks_finish(checks, &digests);
    twinflash_sansio_checks_free(checks);
    snprintf(check, sizeof check, "%x", digests.crc16);
    if (course->manifest) {
        read_text(course->manifest, manifest, sizeof manifest);
        snprintf(member, sizeof member, "\"fwManifest\":\"%s\",", manifest);
    }
    snprintf(desired, sizeof desired,
        "{\"desired\":{\"firmware\":{%s\"fwVersion\":\"2.0.0\",\"fwPackageURI\":\"%s://example.com/fw.bin?sig=secret\","
        "\"fwPackageCheckValue\":\"%s\",\"fwSize\":%ld},\"$version\":3},\"reported\":{\"$version\":1}}",
        member, course->size ? "https" : "http", course->check ? course->check : check,
        course->size ? course->size : SIZE);
}

/* What the boot loader starts is whole at any time. */
static int boot(const flash *f)
{
    static uint8_t bank[SIZE];
    int selected = flash_word(f, FLASH_SELECTED);
    off_t at = FLASH_BANK + selected * FLASH_BANK_SIZE;
    CHECK(pread(f->file, bank, sizeof bank, at) == (ssize_t)sizeof bank);
    CHECK(selected ? memcmp(bank, image, sizeof image) == 0 : memcmp(bank, old, sizeof old) == 0);
    return selected;
}

static int32_t fails(void *data, uint64_t offset, const uint8_t *bytes, size_t length)
{
    (void)data, (void)offset, (void)bytes, (void)length;
    return TWINFLASH_SANSIO_STATUS_STORAGE;
}

static twinflash_sansio_now now = { 1000, 1796000000000 };

static void pass(uint64_t milliseconds)
{
    now.monotonic += milliseconds;
    now.wall += milliseconds;
}

/* The board from its start until it restarts or its update has ended; ends the process. */
static void run(const char *path)
{
    static flash f;
    twinflash_sansio *engine;
    twinflash_sansio_config config;
    twinflash_sansio_board board;
    twinflash_sansio_state state;
    long at = -1, from = 0;
    bool first_end = true;
    int selected;
    char etag[16];
    CHECK(flash_open(&f, path));
    selected = boot(&f);
    board = flash_board(&f);
    if (course->worn_out)
        board.write = fails;
    memset(&config, 0, sizeof config);
    config.size = sizeof config;
    config.contract = "devkit";
    config.current_version = selected ? "2.0.0" : "1.0.0";
    config.seed = (uint64_t)++shared->starts;
    config.checkpoint_bytes = 4 * CHUNK;
    config.trust = "{\"version\":1}"; /* no key set, or a library that looks at none */
    CHECK(twinflash_sansio_new(&config, &board, now, &engine) == TWINFLASH_SANSIO_STATUS_INVALID_CONFIG);
    config.trust = trust[0] ? trust : NULL;
    CHECK(twinflash_sansio_new(&config, &board, now, &engine) == TWINFLASH_SANSIO_STATUS_OK);
    if (!(course->dead && selected))
        CHECK(twinflash_sansio_connected(engine, true, now) == 0);
    for (;;) {
        twinflash_sansio_output out;
        while (twinflash_sansio_poll(engine, now, &out)) {
            CHECK(out.text != NULL && strlen(out.text) == out.length);
            CHECK(out.kind == TWINFLASH_SANSIO_KIND_FETCH || strstr(out.text, "secret") == NULL);
            switch (out.kind) {
            case TWINFLASH_SANSIO_KIND_REPORT:
                if (shared->reported + out.length + 2 > sizeof shared->report)
                    shared->reported = 0;
                memcpy(shared->report + shared->reported, out.text, out.length + 1);
                shared->reported += out.length;
                CHECK(twinflash_sansio_report_done(engine, out.id, 204, now) == 0);
                break;
            case TWINFLASH_SANSIO_KIND_READ_TWIN:
                CHECK(twinflash_sansio_twin(engine, true, desired, strlen(desired), now) == 0);
                break;
            case TWINFLASH_SANSIO_KIND_FETCH: {
                twinflash_sansio_answer answer;
                char range[64];
                CHECK(strstr(out.text, "https://example.com/fw.bin?sig=secret") == out.text);
                CHECK(out.https_only && (out.offset == 0) == (out.validator == NULL));
                memset(&answer, 0, sizeof answer);
                snprintf(etag, sizeof etag, "\"%d\"", course->changes && ++shared->attempts < 4 ? shared->attempts : 9);
                from = out.offset && strcmp(etag, out.validator) == 0 ? (long)out.offset : 0;
                snprintf(range, sizeof range, "bytes %ld-%d/%d", from, SIZE - 1, SIZE);
                answer.status = from ? 206 : 200;
                answer.length = (uint64_t)(SIZE - from);
                answer.range = from ? range : NULL;
                answer.etag = etag;
                at = twinflash_sansio_answered(engine, &answer, now) == 0 ? from : -1;
                break;
            }
            case TWINFLASH_SANSIO_KIND_STOP_FETCH:
                at = -1;
                break;
            case TWINFLASH_SANSIO_KIND_RESTART:
                shared->cut = flash_cut;
                _exit(RESTART);
            case TWINFLASH_SANSIO_KIND_ENDED:
                CHECK(out.outcome == course->outcome && out.status == course->status);
                break;
            default:
                break;
            }
        }
        CHECK(twinflash_sansio_state_of(engine, &state) == 0);
        if (at < 0) {
            uint64_t wake = twinflash_sansio_wake_at(engine);
            if (state.phase == 0 && state.outcome != 0 && first_end) {
                first_end = false; /* what it has to say and to remove is still to be done */
                pass(60000);
                continue;
            }
            if (state.phase == 0 && state.outcome != 0)
                break;
            CHECK(wake != TWINFLASH_SANSIO_UNKNOWN);
            pass(wake > now.monotonic ? wake - now.monotonic : 0);
            continue;
        }
        pass(100);
        if (at == SIZE) {
            CHECK(twinflash_sansio_ended(engine, now) == 0);
            at = -1;
        } else if (course->breaks && strcmp(etag, "\"9\"") != 0 && at - from > 6 * CHUNK) {
            CHECK(twinflash_sansio_broken(engine, false, "reset by peer", now) == 0);
            at = -1;
        } else if (course->breaks && at - from > 10 * CHUNK) {
            CHECK(twinflash_sansio_broken(engine, false, NULL, now) == 0);
            at = -1;
        } else {
            static uint8_t bytes[CHUNK];
            long length = SIZE - at < CHUNK ? SIZE - at : CHUNK;
            memcpy(bytes, image + at, (size_t)length);
            if (strcmp(etag, "\"9\"") != 0) /* another image */
                bytes[0] ^= 0xff;
            at = twinflash_sansio_bytes(engine, bytes, (size_t)length, now) == 0 ? at + length : -1;
        }
    }
    CHECK(state.outcome == course->outcome && state.status == course->status);
    twinflash_sansio_free(engine);
    close(f.file);
    shared->cut = flash_cut;
    _exit(COMPLETED);
}

static void fresh(const char *path)
{
    static flash f;
    flash_cut = -1;
    unlink(path);
    CHECK(flash_open(&f, path));
    CHECK(flash_put(&f, FLASH_BANK, old, sizeof old));
    CHECK(close(f.file) == 0);
}

/* From the first start to the end of the update, with a power cut, and another one so long after it.
 * Whether they came. */
static bool update(const char *path, long first, long second)
{
    long cuts[3];
    int happened = 0;
    static flash f;
    fresh(path);
    cuts[0] = shared->first = first;
    cuts[1] = shared->second = second;
    cuts[2] = -1;
    shared->cut = cuts[0];
    shared->starts = shared->attempts = 0;
    shared->reported = 0;
    for (int starts = 0;; starts++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            flash_cut = shared->cut;
            run(path);
        }
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && starts < 20);
        if (WEXITSTATUS(status) == COMPLETED)
            break;
        if (WEXITSTATUS(status) == POWER)
            shared->cut = cuts[++happened];
        else if (WEXITSTATUS(status) != RESTART)
            exit(1);
    }
    CHECK(flash_open(&f, path));
    CHECK(boot(&f) == (course->outcome == 1) && flash_word(&f, FLASH_GOOD) == (course->outcome == 1));
    close(f.file);
    if (strstr(shared->report, course->says) == NULL)
        fprintf(stderr, "%s\n", shared->report);
    CHECK(strstr(shared->report, course->says) != NULL);
    return happened == (first >= 0) + (second >= 0);
}

int main(int argc, char **argv)
{
    char path[512];
    unsigned random = 1;
    if (argc < 2 || (strcmp(argv[1], "--image") == 0 && argc < 3))
        return 2;
    snprintf(path, sizeof path, "%s/flash", argv[1]);
    shared = (struct shared *)mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    for (size_t i = 0; i < sizeof image; i++)
        image[i] = (uint8_t)((random = random * 1664525 + 1013904223) >> 24);
    memset(old, 0x55, sizeof old);
    directory = argv[1];
#ifdef SIGNED
    now.wall = 1000 * (uint64_t)time(NULL); /* the manifests are of today */
    if (strcmp(argv[1], "--image") == 0) {
        FILE *file;
        directory = argv[2];
        snprintf(path, sizeof path, "%s/image", directory);
        file = fopen(path, "wb");
        return file == NULL || fwrite(image, 1, sizeof image, file) != sizeof image || fclose(file) != 0;
    }
    read_text("trust", trust, sizeof trust);
#endif
    for (size_t i = 0; i < sizeof courses / sizeof *courses; i++) {
        long cut = 0, runs = 1;
        course = &courses[i];
        make_desired();
        update(path, -1, -1);
        for (; update(path, cut, -1); cut++) {
            /* Every pair of them takes minutes: these are all distances, spread over all places. */
            long then = argc > 2 ? 0 : cut % 67;
            for (; update(path, cut, then); then += argc > 2 ? 1 : 67)
                runs++;
            runs += 2;
        }
        printf("%s: power cuts at %ld places, %ld runs\n", course->name, cut, runs);
        fflush(stdout);
        if (cut < 6)
            return 1;
    }
    unlink(path);
    return 0;
}
