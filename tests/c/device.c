/* An update over the library's own connection, against a hub and its back end.
 *
 * Argument: an empty directory. Environment: TEST_SERVER and TEST_IMAGE as in update.c; TEST_DEVICE, a
 * device's connection string; TEST_X509_DEVICE, that of one whose certificate and key are in the file
 * TEST_CERTIFICATE; TEST_CA, the hub's certificate authority; TEST_TWINFLASH, the command
 * that plays the back end, with TWINFLASH_SERVICE in the environment. */
#include "check.h"
#include "twinflash.h"

#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static twinflash_error error;
static twinflash_device *device;
static int called, destroyed, connected;

static bool on_method(const char *name, const void *payload, size_t length, twinflash_answer *answer,
    void *data)
{
    const char *text = "{\"rebooting\":true}";
    CHECK(data == &called && answer->payload == NULL);
    if (strcmp(name, "reboot") != 0)
        return false;
    CHECK(length == 11 && memcmp(payload, "{\"delay\":5}", 11) == 0);
    /* It would wait for the thread it is on. */
    CHECK(twinflash_device_free(device) == TWINFLASH_STATUS_IN_CALLBACK);
    answer->status = 202;
    answer->payload_length = strlen(text);
    answer->payload = (char *)malloc(answer->payload_length);
    CHECK(answer->payload != NULL);
    memcpy(answer->payload, text, answer->payload_length);
    called++;
    return true;
}

static void on_destroy(void *data)
{
    CHECK(data == &called);
    destroyed++;
}

/* Runs the back end; its exit status. */
static int back_end(const char *arguments, const char *expected)
{
    char command[2048], line[1024];
    bool found = false;
    int status;
    FILE *output;
    snprintf(command, sizeof command, "%s --ca '%s' %s 2>&1", getenv("TEST_TWINFLASH"),
        getenv("TEST_CA"), arguments);
    output = popen(command, "r");
    CHECK(output != NULL);
    while (fgets(line, sizeof line, output)) {
        printf("  %s", line);
        found = found || strstr(line, expected) != NULL;
    }
    status = pclose(output);
    CHECK(found && WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Polls events until the device is freed. */
static void *poll_events(void *updater)
{
    twinflash_event *event;
    twinflash_status got;
    while ((got = twinflash_updater_next_event((twinflash_updater *)updater, -1, &event, NULL))
        == TWINFLASH_STATUS_OK) {
        connected += event->kind == TWINFLASH_EVENT_KIND_CONNECTED;
        printf("  %s\n", event->text);
        twinflash_event_free(event);
    }
    CHECK(got == TWINFLASH_STATUS_CLOSED);
    return NULL;
}

/* A device that proves itself by a certificate, in this directory of its own. */
static void by_certificate(const char *directory)
{
    char path[512];
    twinflash_builder *builder = twinflash_builder_new();
    twinflash_updater *updater;
    twinflash_event *event;
    bool there = false;
    snprintf(path, sizeof path, "%s/state", directory);
    CHECK_OK(twinflash_builder_set_string(builder, "state_dir", path, &error), error);
    snprintf(path, sizeof path, "%s/app.bin", directory);
    CHECK_OK(twinflash_builder_set_string(builder, "install.file", path, &error), error);
    CHECK_OK(twinflash_builder_set_string(builder, "ca", getenv("TEST_CA"), &error), error);
    CHECK_OK(twinflash_builder_set_string(builder, "client_certificate", getenv("TEST_CERTIFICATE"), &error), error);
    CHECK_OK(twinflash_builder_start(builder, &updater, &error), error);
    twinflash_builder_free(builder);
    /* The device with a key has no certificate. */
    CHECK_ERROR(twinflash_device_connect(updater, getenv("TEST_DEVICE"), NULL, NULL, NULL, &device, &error),
        TWINFLASH_STATUS_INVALID_CONFIG, error, "exclude each other");
    CHECK_OK(twinflash_device_connect(updater, getenv("TEST_X509_DEVICE"), NULL, NULL, NULL, &device, &error), error);
    while (!there) {
        CHECK_OK(twinflash_updater_next_event(updater, 60000, &event, &error), error);
        printf("  %s\n", event->text);
        there = event->kind == TWINFLASH_EVENT_KIND_CONNECTED;
        twinflash_event_free(event);
    }
    CHECK(twinflash_device_free(device) == TWINFLASH_STATUS_OK);
    CHECK(twinflash_updater_free(updater) == TWINFLASH_STATUS_OK);
}

int main(int argc, char **argv)
{
    const char *connection = getenv("TEST_DEVICE");
    char path[512], file[512], arguments[2048];
    twinflash_builder *builder = twinflash_builder_new();
    twinflash_updater *updater;
    twinflash_device *second;
    twinflash_digests image, installed;
    twinflash_outcome outcome;
    pthread_t polling;
    alarm(300); /* What waits for ever fails, too. */
    CHECK(argc == 2 && connection && getenv("TEST_CA") && getenv("TEST_TWINFLASH"));
    CHECK_OK(twinflash_image_info(getenv("TEST_IMAGE"), &image, &error), error);

    snprintf(path, sizeof path, "%s/state", argv[1]);
    CHECK_OK(twinflash_builder_set_string(builder, "state_dir", path, &error), error);
    snprintf(file, sizeof file, "%s/app.bin", argv[1]);
    CHECK_OK(twinflash_builder_set_string(builder, "install.file", file, &error), error);
    CHECK_OK(twinflash_builder_set_string(builder, "current_version", "1.0.0", &error), error);
    CHECK_OK(twinflash_builder_set_string(builder, "ca", getenv("TEST_CA"), &error), error);
    CHECK_OK(twinflash_builder_set_bool(builder, "policy.allow_http", true, &error), error);
    CHECK_OK(twinflash_builder_start(builder, &updater, &error), error);
    twinflash_builder_free(builder);

    CHECK(pthread_create(&polling, NULL, poll_events, updater) == 0);
    /* One that cannot be made is none. */
    CHECK_ERROR(twinflash_device_connect(updater, "HostName=h", on_method, &called, on_destroy, &device,
        &error), TWINFLASH_STATUS_INVALID_CONFIG, error, "");
    CHECK(device == NULL && destroyed == 1);
    CHECK_OK(twinflash_device_connect(updater, connection, on_method, &called, on_destroy, &device,
        &error), error);
    CHECK_ERROR(twinflash_device_connect(updater, connection, on_method, &called, on_destroy, &second,
        &error), TWINFLASH_STATUS_ALREADY_SET, error, "device");
    CHECK(second == NULL && destroyed == 2);

    snprintf(arguments, sizeof arguments, "update device1 %s/image.bin --version 2.0.0 --check %04x",
        getenv("TEST_SERVER"), image.crc16);
    CHECK(back_end(arguments, "applyComplete") == 0);
    CHECK_OK(twinflash_updater_wait(updater, 60000, &outcome, &error), error);
    CHECK(outcome == TWINFLASH_OUTCOME_COMPLETED);
    CHECK_OK(twinflash_image_info(file, &installed, &error), error);
    CHECK(memcmp(installed.sha256, image.sha256, sizeof image.sha256) == 0);

    /* The application's own methods. */
    CHECK(back_end("job start --method reboot --payload '{\"delay\":5}' --where \"deviceId = 'device1'\""
        " --follow", "202") == 0);

    CHECK(twinflash_device_free(device) == TWINFLASH_STATUS_OK);
    CHECK(called == 1 && destroyed == 3);
    /* The updater was closed with its connection. */
    CHECK_ERROR(twinflash_updater_cancel(updater, NULL, &error), TWINFLASH_STATUS_CLOSED, error, "closed");
    CHECK(pthread_join(polling, NULL) == 0 && connected == 1);
    CHECK(twinflash_updater_free(updater) == TWINFLASH_STATUS_OK);
    snprintf(path, sizeof path, "%s/certified", argv[1]);
    CHECK(mkdir(path, 0700) == 0);
    by_certificate(path);
    printf("device: updated by the hub's back end\n");
    return 0;
}
