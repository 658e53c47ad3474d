/* A device with twinflash's own connection to its hub, and an update of one file.
 *
 * device STATE_DIR TARGET, with the connection string in TWINFLASH_DEVICE; for a local hub, the file of
 * its certificate authority in TWINFLASH_CA. Ends on SIGTERM or SIGINT. */
#include <twinflash.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static int failed(const char *what, const twinflash_error *error)
{
    fprintf(stderr, "%s: %s (%s)\n", what, error->message, twinflash_status_name(error->status));
    return 1;
}

/* The application's own direct methods. */
static bool on_method(const char *name, const void *payload, size_t length, twinflash_answer *answer,
    void *user_data)
{
    static const char pong[] = "\"pong\"";
    (void)payload, (void)length, (void)user_data;
    if (strcmp(name, "ping") != 0)
        return false;
    answer->payload = (char *)malloc(sizeof pong);
    if (!answer->payload)
        return false;
    memcpy(answer->payload, pong, sizeof pong);
    answer->payload_length = sizeof pong - 1;
    answer->status = 200;
    return true;
}

int main(int argc, char **argv)
{
    const char *connection = getenv("TWINFLASH_DEVICE"), *ca = getenv("TWINFLASH_CA");
    twinflash_error error;
    twinflash_builder *builder;
    twinflash_updater *updater = NULL;
    twinflash_device *device = NULL;
    twinflash_event *event;
    twinflash_guarded guarded = TWINFLASH_GUARDED_NOTHING;
    twinflash_status status;
    if (argc != 3 || !connection) {
        fprintf(stderr, "usage: TWINFLASH_DEVICE=CONNECTION_STRING device STATE_DIR TARGET\n");
        return 2;
    }
    signal(SIGTERM, stop);
    signal(SIGINT, stop);

    /* The first line of a program that is itself updated: a version that crashes goes back. */
    if (twinflash_guard(argv[1], &guarded, NULL, NULL, &error) != TWINFLASH_STATUS_OK)
        return failed("guard", &error);
    if (guarded == TWINFLASH_GUARDED_ROLLED_BACK)
        return 0; /* The supervisor starts the old version. */

    builder = twinflash_builder_new();
    status = twinflash_builder_set_string(builder, "state_dir", argv[1], &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_set_string(builder, "install.file", argv[2], &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_set_string(builder, "current_version", "1.0.0", &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_set_bool(builder, "policy.allow_http", true, &error);
    if (status == TWINFLASH_STATUS_OK && ca)
        status = twinflash_builder_set_string(builder, "ca", ca, &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_start(builder, &updater, &error);
    twinflash_builder_free(builder);
    if (status != TWINFLASH_STATUS_OK)
        return failed("start", &error);
    if (twinflash_device_connect(updater, connection, on_method, NULL, NULL, &device, &error)
        != TWINFLASH_STATUS_OK) {
        twinflash_updater_free(updater);
        return failed("connect", &error);
    }

    while (!stopped) {
        if (twinflash_updater_next_event(updater, 200, &event, NULL) != TWINFLASH_STATUS_OK)
            continue;
        printf("%s\n", event->text);
        fflush(stdout);
        twinflash_event_free(event);
    }
    twinflash_device_free(device);
    twinflash_updater_free(updater);
    return 0;
}
