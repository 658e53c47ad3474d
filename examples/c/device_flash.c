/* A device whose image goes to a flash of two banks, by functions of its own.
 *
 * device_flash DIRECTORY, with the connection string in TWINFLASH_DEVICE; for a local hub, the file of
 * its certificate authority in TWINFLASH_CA. After an update the program ends with status 0, for its
 * supervisor to start it again:
 *
 *     while ./device_flash /var/lib/device; do :; done
 *
 * The flash is simulated by files in the directory: bank0, bank1, and three words a boot loader would
 * keep: `selected`, the bank that starts, `good`, the one that has proved itself, and `written`, the one
 * the last update was written to. */
#include <twinflash.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BANK_SIZE = 4 << 20 };

typedef struct flash {
    const char *directory;
    int bank;        /* the file of the bank that is written; -1 */
    uint64_t length; /* how much of it is */
} flash;

static int32_t failed(twinflash_error *error, const char *what, int32_t status)
{
    snprintf(error->message, sizeof error->message, "flash: %.300s: %s", what, strerror(errno));
    return status;
}

static int open_in(const flash *f, const char *name, int flags)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", f->directory, name);
    return open(path, flags, 0644);
}

/* A word of the boot loader's: a bank's number. None yet is bank 0, but bank 1 is the one to write to. */
static int read_word(const flash *f, const char *name)
{
    char word = strcmp(name, "written") == 0 ? '1' : '0';
    int file = open_in(f, name, O_RDONLY);
    if (file >= 0) {
        if (read(file, &word, 1) != 1)
            word = '0';
        close(file);
    }
    return word == '1';
}

/* In one step that no power cut can halve. */
static int32_t write_word(const flash *f, const char *name, int bank, twinflash_error *error)
{
    char from[512], to[512], word = bank ? '1' : '0';
    int file = open_in(f, "word", O_WRONLY | O_CREAT | O_TRUNC), directory;
    bool written = file >= 0 && write(file, &word, 1) == 1 && fsync(file) == 0;
    if (file >= 0)
        close(file);
    snprintf(from, sizeof from, "%s/word", f->directory);
    snprintf(to, sizeof to, "%s/%s", f->directory, name);
    if (!written || rename(from, to) != 0)
        return failed(error, to, TWINFLASH_STATUS_STORAGE);
    directory = open(f->directory, O_RDONLY);
    written = directory >= 0 && fsync(directory) == 0;
    if (directory >= 0)
        close(directory);
    return written ? 0 : failed(error, f->directory, TWINFLASH_STATUS_STORAGE);
}

static void close_bank(flash *f)
{
    if (f->bank >= 0)
        close(f->bank);
    f->bank = -1;
}

static int32_t flash_inspect(void *data, int32_t *state, twinflash_error *error)
{
    const flash *f = (flash *)data;
    (void)error;
    /* The new one, also once it is confirmed: power may fail before that is remembered. */
    *state = read_word(f, "selected") == read_word(f, "written") ? TWINFLASH_IMAGE_STATE_NEW
                                                                : TWINFLASH_IMAGE_STATE_OLD;
    return 0;
}

static int32_t flash_begin(void *data, const twinflash_image *image, uint64_t resume_at,
    uint64_t *start_at, twinflash_error *error)
{
    flash *f = (flash *)data;
    struct stat there;
    if (image->has_size && image->size > BANK_SIZE) {
        errno = EFBIG;
        return failed(error, "the bank is smaller than the image", TWINFLASH_STATUS_NO_SPACE);
    }
    close_bank(f);
    if (resume_at == 0) {
        int32_t marked = write_word(f, "written", !read_word(f, "good"), error);
        if (marked != 0)
            return marked;
    }
    f->bank = open_in(f, read_word(f, "good") ? "bank0" : "bank1", O_RDWR | O_CREAT);
    if (f->bank < 0 || fstat(f->bank, &there) != 0)
        return failed(error, "cannot open the other bank", TWINFLASH_STATUS_STORAGE);
    *start_at = (uint64_t)there.st_size >= resume_at ? resume_at : 0;
    if (ftruncate(f->bank, (off_t)*start_at) != 0)
        return failed(error, "cannot erase the other bank", TWINFLASH_STATUS_STORAGE);
    f->length = *start_at;
    return 0;
}

static int32_t flash_write(void *data, uint64_t offset, const uint8_t *bytes, size_t length,
    twinflash_error *error)
{
    flash *f = (flash *)data;
    if (length > BANK_SIZE - offset) {
        errno = EFBIG;
        return failed(error, "the bank is full", TWINFLASH_STATUS_NO_SPACE);
    }
    f->length = offset + length;
    while (length > 0) {
        ssize_t written = pwrite(f->bank, bytes, length, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return failed(error, "cannot write", TWINFLASH_STATUS_STORAGE);
        bytes += written;
        offset += (uint64_t)written;
        length -= (size_t)written;
    }
    return 0;
}

static int32_t flash_sync(void *data, uint64_t *durable, twinflash_error *error)
{
    flash *f = (flash *)data;
    if (fsync(f->bank) != 0)
        return failed(error, "cannot sync", TWINFLASH_STATUS_STORAGE);
    *durable = f->length;
    return 0;
}

static int32_t flash_finish(void *data, twinflash_error *error)
{
    (void)error;
    close_bank((flash *)data);
    return 0;
}

static int32_t flash_activate(void *data, twinflash_error *error)
{
    const flash *f = (flash *)data;
    return write_word(f, "selected", !read_word(f, "good"), error);
}

static int32_t flash_confirm(void *data, twinflash_error *error)
{
    const flash *f = (flash *)data;
    return write_word(f, "good", read_word(f, "selected"), error);
}

static int32_t flash_rollback(void *data, twinflash_error *error)
{
    const flash *f = (flash *)data;
    return write_word(f, "selected", read_word(f, "good"), error);
}

static int32_t flash_abort(void *data, twinflash_error *error)
{
    flash *f = (flash *)data;
    const char *other = read_word(f, "good") ? "bank0" : "bank1";
    int file;
    close_bank(f);
    file = open_in(f, other, O_WRONLY | O_TRUNC);
    if (file < 0)
        return errno == ENOENT ? 0 : failed(error, other, TWINFLASH_STATUS_STORAGE);
    close(file);
    return 0;
}

static void on_event(const twinflash_event *event, void *user_data)
{
    (void)user_data;
    printf("%s\n", event->text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const char *connection = getenv("TWINFLASH_DEVICE"), *ca = getenv("TWINFLASH_CA");
    twinflash_error error;
    twinflash_installer installer;
    twinflash_updater *updater = NULL;
    twinflash_device *device = NULL;
    twinflash_builder *builder;
    twinflash_status status;
    static flash f; /* One of its functions may still run when the updater has been freed. */
    sigset_t signals;
    int signal;
    char state[512];
    if (argc != 2 || !connection) {
        fprintf(stderr, "usage: TWINFLASH_DEVICE=CONNECTION_STRING device_flash DIRECTORY\n");
        return 2;
    }
    /* Blocked in every thread that is started from here on, and waited for below. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    f.directory = argv[1];
    f.bank = -1;
    f.length = 0;
    printf("bank %d runs\n", read_word(&f, "selected"));
    fflush(stdout);

    memset(&installer, 0, sizeof installer);
    installer.size = sizeof installer;
    installer.user_data = &f;
    installer.restart = TWINFLASH_RESTART_EXIT;
    installer.inspect = flash_inspect;
    installer.begin = flash_begin;
    installer.write = flash_write;
    installer.sync = flash_sync;
    installer.finish = flash_finish;
    installer.activate = flash_activate;
    installer.confirm = flash_confirm;
    installer.rollback = flash_rollback;
    installer.abort = flash_abort;

    snprintf(state, sizeof state, "%s/state", argv[1]);
    builder = twinflash_builder_new();
    status = twinflash_builder_set_installer(builder, &installer, &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_set_string(builder, "state_dir", state, &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_set_bool(builder, "policy.allow_http", true, &error);
    if (status == TWINFLASH_STATUS_OK && ca)
        status = twinflash_builder_set_string(builder, "ca", ca, &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_on_event(builder, on_event, NULL, NULL, &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_start(builder, &updater, &error);
    twinflash_builder_free(builder);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_device_connect(updater, connection, NULL, NULL, NULL, &device, &error);
    if (status != TWINFLASH_STATUS_OK) {
        fprintf(stderr, "%s (%s)\n", error.message, twinflash_status_name(error.status));
        twinflash_updater_free(updater);
        return 1;
    }
    sigwait(&signals, &signal);
    twinflash_device_free(device);
    twinflash_updater_free(updater);
    return 3; /* Not to be started again. */
}
