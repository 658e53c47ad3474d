/* What whole updates are made of: an application with its own transport, polled, and a flash in memory. */
#ifndef WHOLE_H
#define WHOLE_H

#include "flash.h"

#include <poll.h>
#include <unistd.h>

static twinflash_error error;
static const char *directory, *server;
static char sha256[65];
static uint8_t image[BANK_SIZE];
static size_t image_size;

static void read_image(const char *path)
{
    twinflash_digests digests;
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    image_size = fread(image, 1, sizeof image, file);
    CHECK(fclose(file) == 0);
    CHECK_OK(twinflash_image_info(path, &digests, &error), error);
    CHECK(digests.size == image_size && image_size > 100000);
    for (int i = 0; i < 32; i++)
        snprintf(sha256 + 2 * i, 3, "%02x", digests.sha256[i]);
}

/* What a program is started with: a directory of its own; the server and its image are in the environment. */
static void begin(int argc, char **argv)
{
    alarm(300); /* What waits for ever fails, too. */
    CHECK(argc == 2 && getenv("TEST_SERVER") && getenv("TEST_IMAGE"));
    directory = argv[1];
    server = getenv("TEST_SERVER");
    read_image(getenv("TEST_IMAGE"));
}

/* The request for the image at a path, in `iothub-dm`. */
static const char *request(const char *path)
{
    static char text[512];
    snprintf(text, sizeof text,
        "{\"fwPackageUri\":\"%s%s%s\",\"fwPackageCheckValue\":\"%s\",\"fwVersion\":\"2.0.0\"}",
        strncmp(path, "http", 4) == 0 ? "" : server, path, "?sig=secret", sha256);
    return text;
}

static twinflash_builder *builder(const char *name, flash *f, int32_t restart)
{
    twinflash_builder *made = twinflash_builder_new();
    char path[320];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    CHECK_OK(twinflash_builder_set_string(made, "state_dir", path, &error), error);
    CHECK_OK(twinflash_builder_set_string(made, "current_version", f->running ? "2.0.0" : "1.0.0",
        &error), error);
    CHECK_OK(twinflash_builder_set_json(made,
        "{\"policy\":{\"allow_http\":true,\"answer_wait\":0,\"checkpoint_bytes\":65536,"
        "\"checkpoint_interval\":0.1,\"retry_first\":0.2}}", &error), error);
    flash_install(made, f, restart);
    return made;
}

static twinflash_updater *started(twinflash_builder *made)
{
    twinflash_updater *updater;
    CHECK_OK(twinflash_builder_start(made, &updater, &error), error);
    twinflash_builder_free(made);
    return updater;
}

/* Starts an update; the method is answered at once. */
static void ask(twinflash_updater *updater, const char *path)
{
    twinflash_answer answer;
    const char *text = request(path);
    CHECK_OK(twinflash_updater_handle_method(updater, "firmwareUpdate", text, strlen(text), &answer,
        &error), error);
    if (answer.status != 200)
        fprintf(stderr, "%s\n", answer.payload);
    CHECK(answer.status == 200);
    free(answer.payload);
}

/* Serves what is polled as a hub would, on this thread; ends at an event of this kind (and, where it
 * is a phase, of this phase), or once so many bytes are there. */
static void serve(twinflash_updater *updater, int32_t kind, int32_t phase, twinflash_event **last)
{
    for (;;) {
        struct pollfd waited[2];
        twinflash_outbound *outbound;
        twinflash_event *event;
        waited[0].fd = twinflash_updater_outbound_descriptor(updater);
        waited[1].fd = twinflash_updater_event_descriptor(updater);
        waited[0].events = waited[1].events = POLLIN;
        CHECK(poll(waited, 2, 60000) > 0);
        if (waited[0].revents) {
            CHECK_OK(twinflash_updater_next_outbound(updater, 0, &outbound, &error), error);
            if (outbound->kind == TWINFLASH_OUTBOUND_KIND_READ_TWIN) {
                const char *twin = "{\"desired\":{\"$version\":1},\"reported\":{\"$version\":1}}";
                CHECK_OK(twinflash_updater_handle_twin(updater, true, twin, strlen(twin), &error),
                    error);
            } else {
                CHECK(outbound->patch_length == strlen(outbound->patch));
                CHECK(strstr(outbound->patch, "secret") == NULL);
                CHECK_OK(twinflash_updater_report_done(updater, outbound->id, 204, &error), error);
            }
            twinflash_outbound_free(outbound);
        }
        if (waited[1].revents) {
            int32_t found;
            CHECK_OK(twinflash_updater_next_event(updater, 0, &event, &error), error);
            CHECK(strstr(event->text, "secret") == NULL);
            found = event->kind == kind && (phase == 0 || (int32_t)event->phase == phase);
            if (found && last) {
                *last = event;
                return;
            }
            twinflash_event_free(event);
            if (found)
                return;
        }
    }
}

static void has_image(const flash *f)
{
    CHECK(f->running == 1 || f->next == 1);
    CHECK(f->size[1] == image_size && memcmp(f->bank[1], image, image_size) == 0);
}

static flash *new_flash(void)
{
    flash *f = (flash *)calloc(1, sizeof *f);
    CHECK(f != NULL);
    return f;
}

static void gone(twinflash_updater *updater, flash *f)
{
    CHECK(twinflash_updater_free(updater) == TWINFLASH_STATUS_OK);
    CHECK(f->destroyed == 1);
    free(f);
}

#endif
