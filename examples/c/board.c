/* Firmware for a board, on twinflash's part without an operating system: one loop, no threads, and all
 * input and output done here, by poll().
 *
 * board FLASH, a file that stands for the board's flash (see board_flash.h). After an update the program
 * ends with status 0, for its supervisor to start it again, as a board resets:
 *
 *     while out/board flash; do :; done
 *
 * Its hub are the terminal's lines, {"desired":…} for a twin that is read, {"firmware":…} for a patch of
 * the desired properties; what is reported is printed. Its images come by plain HTTP: where a board has a
 * TLS of its own, that takes the place of fetch_… below. */
#include "board_flash.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

static twinflash_sansio_now now(void)
{
    twinflash_sansio_now read;
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    read.monotonic = (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
    clock_gettime(CLOCK_REALTIME, &time);
    read.wall = (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
    return read;
}

/* A connection to the image's server: closed, sending, reading the head, reading the body. */
typedef struct fetch {
    int socket; /* -1: none */
    char head[4096];
    size_t filled, sent;
    bool sending, body;
    uint64_t left; /* of the body, or TWINFLASH_SANSIO_UNKNOWN */
} fetch;

static void fetch_close(fetch *f)
{
    if (f->socket >= 0)
        close(f->socket);
    f->socket = -1;
}

static bool fetch_open(fetch *f, const twinflash_sansio_output *wanted)
{
    char host[256], port[8] = "80", path[2048] = "/", range[640] = "";
    struct addrinfo hints, *found = NULL;
    int length;
    if (sscanf(wanted->text, "http://%255[^:/]:%7[0-9]%2047s", host, port, path) < 2
        && sscanf(wanted->text, "http://%255[^:/]%2047s", host, path) < 1)
        return false;
    if (wanted->offset)
        snprintf(range, sizeof range, "Range: bytes=%llu-\r\nIf-Range: %.512s\r\n",
            (unsigned long long)wanted->offset, wanted->validator ? wanted->validator : "");
    length = snprintf(f->head, sizeof f->head,
        "GET %s HTTP/1.1\r\nHost: %s:%s\r\nAccept-Encoding: identity\r\nConnection: close\r\n%s\r\n", path,
        host, port, range);
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    if (length < 0 || (size_t)length >= sizeof f->head || getaddrinfo(host, port, &hints, &found) != 0)
        return false;
    f->filled = (size_t)length;
    f->sent = 0;
    f->sending = true;
    f->body = false;
    f->socket = socket(found->ai_family, SOCK_STREAM, 0);
    if (f->socket >= 0
        && (fcntl(f->socket, F_SETFL, O_NONBLOCK) != 0
            || (connect(f->socket, found->ai_addr, found->ai_addrlen) != 0 && errno != EINPROGRESS)))
        fetch_close(f);
    freeaddrinfo(found);
    return f->socket >= 0;
}

/* The value of a header, ended by a zero; NULL where there is none. */
static char *fetch_header(char *head, const char *name)
{
    for (char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, strlen(name)) == 0 && line[2 + strlen(name)] == ':')
            return line + 3 + strlen(name) + strspn(line + 3 + strlen(name), " ");
    return NULL;
}

/* The head has come, and perhaps the body's first bytes. */
static bool fetch_answered(fetch *f, twinflash_sansio *engine)
{
    char *end = strstr(f->head, "\r\n\r\n"), *length, *names[2];
    size_t first;
    twinflash_sansio_answer answer;
    if (!end)
        return f->filled < sizeof f->head - 1;
    first = f->filled - (size_t)(end + 4 - f->head);
    end[2] = 0;
    memset(&answer, 0, sizeof answer);
    answer.status = strncmp(f->head, "HTTP/1.", 7) == 0 ? atoi(f->head + 9) : 0;
    length = fetch_header(f->head, "Content-Length");
    answer.length = length ? strtoull(length, NULL, 10) : TWINFLASH_SANSIO_UNKNOWN;
    answer.range = names[0] = fetch_header(f->head, "Content-Range");
    answer.etag = names[1] = fetch_header(f->head, "ETag");
    for (int i = 0; i < 2; i++)
        if (names[i])
            names[i][strcspn(names[i], "\r")] = 0;
    f->body = true;
    f->left = answer.length;
    if (twinflash_sansio_answered(engine, &answer, now()) != TWINFLASH_SANSIO_STATUS_OK)
        return false;
    if (first && f->left != TWINFLASH_SANSIO_UNKNOWN)
        f->left -= first;
    return first == 0
        || twinflash_sansio_bytes(engine, end + 4, first, now()) == TWINFLASH_SANSIO_STATUS_OK;
}

/* Does what the socket is ready for. */
static void fetch_work(fetch *f, twinflash_sansio *engine)
{
    static uint8_t bytes[16384];
    ssize_t got;
    bool going_on = true;
    if (f->sending) {
        got = send(f->socket, f->head + f->sent, f->filled - f->sent, MSG_NOSIGNAL);
        f->sent += got > 0 ? (size_t)got : 0;
        if (f->sent == f->filled) {
            f->sending = false;
            f->filled = 0;
        }
    } else if (!f->body) {
        got = recv(f->socket, f->head + f->filled, sizeof f->head - 1 - f->filled, 0);
        f->filled += got > 0 ? (size_t)got : 0;
        f->head[f->filled] = 0;
        going_on = got <= 0 || fetch_answered(f, engine);
    } else {
        got = recv(f->socket, bytes, sizeof bytes, 0);
        if (got > 0 && f->left != TWINFLASH_SANSIO_UNKNOWN)
            f->left -= (uint64_t)got < f->left ? (uint64_t)got : f->left;
        going_on = got <= 0
            || twinflash_sansio_bytes(engine, bytes, (size_t)got, now()) == TWINFLASH_SANSIO_STATUS_OK;
    }
    if (!going_on) {
        fetch_close(f); /* the engine has no use for it, and knows why */
    } else if (got == 0 || (f->body && f->left == 0)) {
        twinflash_sansio_ended(engine, now());
        fetch_close(f);
    } else if (got < 0 && errno != EAGAIN && errno != EINTR) {
        twinflash_sansio_broken(engine, false, strerror(errno), now());
        fetch_close(f);
    }
}

/* Everything that is to be done now. */
static void work(twinflash_sansio *engine, fetch *f)
{
    static const char *const phases[] = { "idle", "waiting", "downloading", "verifying", "applying",
        "rebooting", "confirming", "rolling back" };
    twinflash_sansio_output output;
    while (twinflash_sansio_poll(engine, now(), &output)) {
        switch (output.kind) {
        case TWINFLASH_SANSIO_KIND_REPORT:
            printf("reported %s\n", output.text);
            twinflash_sansio_report_done(engine, output.id, 204, now());
            break;
        case TWINFLASH_SANSIO_KIND_READ_TWIN:
            printf("twin?\n");
            break;
        case TWINFLASH_SANSIO_KIND_FETCH:
            if (!fetch_open(f, &output))
                twinflash_sansio_broken(engine, false, "the server cannot be reached", now());
            break;
        case TWINFLASH_SANSIO_KIND_STOP_FETCH:
            fetch_close(f);
            break;
        case TWINFLASH_SANSIO_KIND_RESTART:
            printf("restart\n");
            exit(0); /* As good as a power cut: everything is in the flash. */
        case TWINFLASH_SANSIO_KIND_PHASE:
            printf("%s\n", phases[output.phase]);
            break;
        case TWINFLASH_SANSIO_KIND_ENDED:
            printf("ended: %s%s\n", output.outcome == 1 ? "completed" : "not completed: ", output.text);
            break;
        case TWINFLASH_SANSIO_KIND_REFUSED:
        case TWINFLASH_SANSIO_KIND_RETRY:
        case TWINFLASH_SANSIO_KIND_WARNING:
            printf("%s\n", output.text);
            break;
        default:
            break;
        }
    }
    fflush(stdout);
}

/* A line of the terminal's has come: a twin, or a patch of one. False at the end. */
static bool hub(twinflash_sansio *engine)
{
    static char lines[8192];
    static size_t filled;
    ssize_t got = read(STDIN_FILENO, lines + filled, sizeof lines - filled);
    char *end;
    if (got <= 0)
        return false;
    filled += (size_t)got;
    while ((end = (char *)memchr(lines, '\n', filled)) != NULL) {
        size_t length = (size_t)(end - lines);
        twinflash_sansio_twin(engine, strncmp(lines, "{\"desired\"", 10) == 0, lines, length, now());
        filled -= length + 1;
        memmove(lines, end + 1, filled);
    }
    return filled < sizeof lines;
}

int main(int argc, char **argv)
{
    static flash f;
    twinflash_sansio *engine;
    twinflash_sansio_config config;
    twinflash_sansio_board board;
    fetch image;
    bool connected = true;
    if (argc != 2) {
        fprintf(stderr, "usage: board FILE\n");
        return 2;
    }
    if (!flash_open(&f, argv[1])) {
        perror(argv[1]); /* it stands for the flash */
        return 2;
    }
    board = flash_board(&f);
    memset(&config, 0, sizeof config);
    config.size = sizeof config;
    config.contract = "devkit";
    /* A real board has its version compiled in; here it is the bank's. */
    config.current_version = flash_word(&f, FLASH_SELECTED) ? "1.1.0" : "1.0.0";
    config.seed = now().wall;
    config.allow_http = true;
    if (twinflash_sansio_new(&config, &board, now(), &engine) != TWINFLASH_SANSIO_STATUS_OK)
        return 1;
    printf("bank %d runs, version %s\n", flash_word(&f, FLASH_SELECTED), config.current_version);
    image.socket = -1;
    twinflash_sansio_connected(engine, true, now());
    while (connected) {
        struct pollfd ready[2];
        uint64_t wake, time;
        work(engine, &image);
        wake = twinflash_sansio_wake_at(engine);
        time = now().monotonic;
        wake = wake > time ? wake - time : 0;
        ready[0].fd = STDIN_FILENO;
        ready[0].events = POLLIN;
        ready[1].fd = image.socket; /* one that is negative is left out */
        ready[1].events = image.socket >= 0 && image.sending ? POLLOUT : POLLIN;
        ready[1].revents = 0;
        if (poll(ready, 2, wake < 60000 ? (int)wake : 60000) > 0) {
            if (ready[1].revents)
                fetch_work(&image, engine);
            if (ready[0].revents)
                connected = hub(engine);
        }
    }
    fetch_close(&image);
    twinflash_sansio_free(engine);
    return 3; /* Not to be started again. */
}
