/* What bad input gets: a status and a message, and nothing else happens. Argument: an empty directory. */
#include "check.h"
#include "twinflash.h"

#include <unistd.h>

static twinflash_error error;
static char directory[256];

static twinflash_builder *builder(void)
{
    twinflash_builder *made = twinflash_builder_new();
    char path[320];
    snprintf(path, sizeof path, "%s/state", directory);
    CHECK_OK(twinflash_builder_set_string(made, "state_dir", path, &error), error);
    return made;
}

static void versions(void)
{
    char expected[64];
    CHECK(strcmp(twinflash_version(), TWINFLASH_VERSION) == 0);
    snprintf(expected, sizeof expected, "%d.%d.%d", TWINFLASH_VERSION_MAJOR,
        TWINFLASH_VERSION_MINOR, TWINFLASH_VERSION_PATCH);
    CHECK(strcmp(expected, TWINFLASH_VERSION) == 0);
    CHECK(strcmp(twinflash_status_name(TWINFLASH_STATUS_HTTP_STATUS), "http-status") == 0);
    CHECK(strcmp(twinflash_status_name(-7), "unknown") == 0);
}

static void null_is_freed(void)
{
    twinflash_builder_free(NULL);
    twinflash_event_free(NULL);
    twinflash_outbound_free(NULL);
    twinflash_state_free(NULL);
    twinflash_wanted_free(NULL);
    CHECK(twinflash_updater_free(NULL) == TWINFLASH_STATUS_OK);
    CHECK(twinflash_device_free(NULL) == TWINFLASH_STATUS_OK);
}

static void null_is_named(void)
{
    const int null = TWINFLASH_STATUS_NULL_ARGUMENT;
    twinflash_builder *b = twinflash_builder_new();
    twinflash_updater *u = NULL;
    twinflash_device *d = NULL;
    twinflash_answer answer;
    twinflash_digests digests;
    size_t taken;
    CHECK_ERROR(twinflash_builder_set_string(NULL, "a", "b", &error), null, error, "builder");
    CHECK_ERROR(twinflash_builder_set_string(b, NULL, "b", &error), null, error, "key");
    CHECK_ERROR(twinflash_builder_set_string(b, "a", NULL, &error), null, error, "value");
    CHECK_ERROR(twinflash_builder_set_json(b, NULL, &error), null, error, "json");
    CHECK_ERROR(twinflash_builder_set_installer(b, NULL, &error), null, error, "installer");
    CHECK_ERROR(twinflash_builder_on_event(b, NULL, NULL, NULL, &error), null, error, "callback");
    CHECK_ERROR(twinflash_builder_start(NULL, &u, &error), null, error, "builder");
    CHECK_ERROR(twinflash_builder_start(b, NULL, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_handle_method(NULL, "m", NULL, 0, &answer, &error), null, error,
        "updater");
    CHECK_ERROR(twinflash_updater_handle_method(NULL, "m", NULL, 0, NULL, &error), null, error,
        "answer");
    CHECK_ERROR(twinflash_updater_handle_twin(NULL, true, "{}", 2, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_twin_failed(NULL, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_flush(NULL, 0, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_connected(NULL, true, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_wait(NULL, 0, NULL, &error), null, error, "updater");
    CHECK_ERROR(twinflash_device_connect(NULL, "x", NULL, NULL, NULL, &d, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_next_wanted(NULL, 0, NULL, &error), null, error, "wanted");
    CHECK_ERROR(twinflash_updater_offer_response(NULL, 1, NULL, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_offer(NULL, 1, 0, "x", 1, 0, &taken, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_offer_end(NULL, 1, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_offer_failed(NULL, 1, 203, "why", true, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_report_done(NULL, 1, 204, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_confirm(NULL, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_cancel(NULL, NULL, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_pause(NULL, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_resume(NULL, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_close(NULL, &error), null, error, "updater");
    CHECK_ERROR(twinflash_updater_state(NULL, NULL, &error), null, error, "state");
    CHECK_ERROR(twinflash_updater_next_event(NULL, 0, NULL, &error), null, error, "event");
    CHECK_ERROR(twinflash_updater_next_outbound(NULL, 0, NULL, &error), null, error, "outbound");
    CHECK_ERROR(twinflash_updater_handle_method_then(NULL, "m", NULL, 0, NULL, NULL, &error), null, error,
        "updater");
    CHECK_ERROR(twinflash_builder_set_integer(NULL, "a", 1, &error), null, error, "builder");
    CHECK_ERROR(twinflash_builder_set_bool(NULL, "a", true, &error), null, error, "builder");
    CHECK_ERROR(twinflash_builder_on_outbound(b, NULL, NULL, NULL, &error), null, error, "callback");
    CHECK_ERROR(twinflash_builder_on_restart(b, NULL, NULL, NULL, &error), null, error, "callback");
    CHECK_ERROR(twinflash_builder_on_log(b, TWINFLASH_LEVEL_INFO, NULL, NULL, NULL, &error), null, error,
        "callback");
    CHECK_ERROR(twinflash_builder_on_log(b, 9, NULL, NULL, NULL, &error), TWINFLASH_STATUS_INVALID_ARGUMENT,
        error, "9 is no level");
    CHECK_ERROR(twinflash_image_verify(NULL, "31c3", &error), null, error, "path");
    CHECK_ERROR(twinflash_image_verify("x", NULL, &error), null, error, "check");
    CHECK_ERROR(twinflash_image_info(NULL, &digests, &error), null, error, "path");
    CHECK_ERROR(twinflash_image_info("x", NULL, &error), null, error, "info");
    CHECK_ERROR(twinflash_guard(NULL, NULL, NULL, NULL, &error), null, error, "state_dir");
    CHECK(twinflash_updater_outbound_descriptor(NULL) == -1);
    /* Nobody has to take the error. */
    CHECK(twinflash_builder_set_string(NULL, "a", "b", NULL) == null);
    twinflash_builder_free(b);
}

/* As deep as nothing is: what is nested without end must not use up the stack. */
static char long_key[400000];

static void configuration(void)
{
    const int config = TWINFLASH_STATUS_INVALID_CONFIG, set = TWINFLASH_STATUS_ALREADY_SET;
    twinflash_updater *u = (twinflash_updater *)&error;
    twinflash_builder *b = builder();
    CHECK_ERROR(twinflash_builder_set_string(b, "state_dir", "x", &error), set, error, "state_dir");
    CHECK_ERROR(twinflash_builder_set_string(b, "policy..a", "x", &error),
        TWINFLASH_STATUS_INVALID_ARGUMENT, error, "policy..a");
    memset(long_key, '.', sizeof long_key);
    for (size_t i = 0; i < sizeof long_key; i += 2)
        long_key[i] = 'a';
    long_key[sizeof long_key - 1] = 0;
    CHECK_ERROR(twinflash_builder_set_string(b, long_key, "x", &error),
        TWINFLASH_STATUS_INVALID_ARGUMENT, error, "parts");
    CHECK_ERROR(twinflash_builder_set_string(b, "install.\xff", "x", &error),
        TWINFLASH_STATUS_INVALID_UTF8, error, "key");
    CHECK_ERROR(twinflash_builder_set_json(b, "{", &error), TWINFLASH_STATUS_INVALID_ARGUMENT,
        error, "json");
    CHECK_OK(twinflash_builder_set_json(b, "{\"policy\":{\"retry_time\":60}}", &error), error);
    CHECK_ERROR(twinflash_builder_set_integer(b, "policy.retry_time", 5, &error), set, error,
        "policy.retry_time");
    CHECK_OK(twinflash_builder_set_integer(b, "policy.max_size", -5, &error), error);
    CHECK_ERROR(twinflash_builder_start(b, &u, &error), config, error, "policy.max_size");
    CHECK(u == NULL);
    CHECK_ERROR(twinflash_builder_start(b, &u, &error), TWINFLASH_STATUS_USED, error, "used");
    CHECK_ERROR(twinflash_builder_set_bool(b, "policy.allow_http", true, &error),
        TWINFLASH_STATUS_USED, error, "used");
    twinflash_builder_free(b);

    b = builder();
    CHECK_ERROR(twinflash_builder_start(b, &u, &error), config, error, "install is missing");
    twinflash_builder_free(b);

    b = builder();
    CHECK_OK(twinflash_builder_set_string(b, "install.file", "app.bin", &error), error);
    CHECK_OK(twinflash_builder_set_string(b, "contract", "iothub", &error), error);
    CHECK_ERROR(twinflash_builder_start(b, &u, &error), config, error, "iothub-dm");
    twinflash_builder_free(b);
}

static int destroyed;

static void destroy(void *data)
{
    CHECK(data == &destroyed);
    destroyed++;
}

static int32_t fails(void *data, twinflash_error *why)
{
    (void)data;
    snprintf(why->message, sizeof why->message, "the flash is worn out");
    return TWINFLASH_STATUS_STORAGE;
}

static int32_t inspect(void *data, int32_t *state, twinflash_error *why)
{
    (void)data, (void)why;
    *state = TWINFLASH_IMAGE_STATE_OLD;
    return 0;
}

static int32_t begin(void *data, const twinflash_image *image, uint64_t at, uint64_t *start,
    twinflash_error *why)
{
    (void)image, (void)at, (void)start;
    return fails(data, why);
}

static int32_t write_bytes(void *data, uint64_t at, const uint8_t *bytes, size_t length,
    twinflash_error *why)
{
    (void)at, (void)bytes, (void)length;
    return fails(data, why);
}

static int32_t sync_bytes(void *data, uint64_t *durable, twinflash_error *why)
{
    (void)durable;
    return fails(data, why);
}

static void installers(void)
{
    twinflash_installer table;
    twinflash_updater *u;
    twinflash_builder *b = builder();
    memset(&table, 0, sizeof table);
    CHECK_ERROR(twinflash_builder_set_installer(b, &table, &error),
        TWINFLASH_STATUS_INVALID_ARGUMENT, error, "installer.size is 0");
    /* Between two members: a function would be half a pointer. */
    table.size = sizeof table - 3;
    CHECK_ERROR(twinflash_builder_set_installer(b, &table, &error),
        TWINFLASH_STATUS_INVALID_ARGUMENT, error, "installer.size");
    table.size = sizeof table;
    table.destroy = destroy;
    table.user_data = &destroyed;
    CHECK_ERROR(twinflash_builder_set_installer(b, &table, &error), TWINFLASH_STATUS_NULL_ARGUMENT,
        error, "installer.inspect");
    CHECK(destroyed == 1);
    table.inspect = inspect;
    table.begin = begin;
    table.write = write_bytes;
    table.sync = sync_bytes;
    table.finish = table.activate = table.confirm = table.rollback = table.abort = fails;
    CHECK_OK(twinflash_builder_set_installer(b, &table, &error), error);
    CHECK_ERROR(twinflash_builder_set_installer(b, &table, &error), TWINFLASH_STATUS_ALREADY_SET,
        error, "installer");
    CHECK(destroyed == 2);
    CHECK_OK(twinflash_builder_set_string(b, "install.file", "x", &error), error);
    CHECK_ERROR(twinflash_builder_start(b, &u, &error), TWINFLASH_STATUS_ALREADY_SET, error,
        "installer");
    CHECK(destroyed == 3);
    twinflash_builder_free(b);
}

static void updaters(void)
{
    twinflash_updater *u, *second;
    twinflash_state *state;
    twinflash_event *event;
    twinflash_outbound *outbound;
    twinflash_answer answer;
    twinflash_outcome outcome;
    bool cancelled = true;
    twinflash_device *d;
    twinflash_builder *b = builder();
    char path[320];
    snprintf(path, sizeof path, "%s/app.bin", directory);
    CHECK_OK(twinflash_builder_set_string(b, "install.file", path, &error), error);
    CHECK_OK(twinflash_builder_set_string(b, "current_version", "1.0.0", &error), error);
    CHECK_OK(twinflash_builder_start(b, &u, &error), error);
    twinflash_builder_free(b);

    CHECK(twinflash_updater_next_outbound(u, 0, &outbound, &error) == TWINFLASH_STATUS_TIMEOUT);
    CHECK(error.status == TWINFLASH_STATUS_TIMEOUT && strstr(error.message, "time given"));
    CHECK(outbound == NULL);

    /* A second one in the same directory is told so. */
    b = builder();
    CHECK_OK(twinflash_builder_set_string(b, "install.file", path, &error), error);
    CHECK_ERROR(twinflash_builder_start(b, &second, &error), TWINFLASH_STATUS_LOCKED, error, "state");
    twinflash_builder_free(b);

    CHECK(twinflash_updater_handle_method(u, "reboot", "{}", 2, &answer, &error)
        == TWINFLASH_STATUS_NOT_MINE);
    CHECK(answer.status == 404 && answer.payload == NULL);
    CHECK_ERROR(twinflash_updater_handle_method(u, "firmwareUpdate", "{}", (size_t)-1, &answer,
        &error), TWINFLASH_STATUS_INVALID_ARGUMENT, error, "length of payload");
    CHECK_ERROR(twinflash_updater_handle_method(u, "firmwareUpdate", NULL, 4, &answer, &error),
        TWINFLASH_STATUS_NULL_ARGUMENT, error, "payload");
    CHECK_OK(twinflash_updater_handle_method(u, "firmwareUpdate", "{", 1, &answer, &error), error);
    CHECK(answer.status == 400 && answer.payload_length == strlen(answer.payload));
    free(answer.payload);
    CHECK_OK(twinflash_updater_handle_method(u, "firmwareUpdate", NULL, 0, &answer, &error), error);
    CHECK(answer.status == 400);
    free(answer.payload);
    CHECK_ERROR(twinflash_updater_report_done(u, 1, 70000, &error),
        TWINFLASH_STATUS_INVALID_ARGUMENT, error, "70000");
    CHECK_OK(twinflash_updater_handle_twin(u, false, "no JSON", 7, &error), error);
    CHECK_OK(twinflash_updater_twin_failed(u, &error), error);
    CHECK_OK(twinflash_updater_flush(u, 5000, &error), error);

    CHECK_OK(twinflash_updater_state(u, &state, &error), error);
    CHECK(state->phase == TWINFLASH_PHASE_NONE && state->outcome == TWINFLASH_OUTCOME_NONE);
    CHECK(strcmp(state->running_version, "1.0.0") == 0 && state->version == NULL);
    twinflash_state_free(state);
    CHECK_ERROR(twinflash_updater_defer(u, -1, NULL, &error), TWINFLASH_STATUS_INVALID_ARGUMENT, error,
        "seconds is -1.0");
    CHECK_OK(twinflash_updater_cancel(u, &cancelled, &error), error);
    CHECK(!cancelled);
    CHECK(twinflash_updater_wait(u, 0, &outcome, &error) == TWINFLASH_STATUS_TIMEOUT);
    CHECK_ERROR(twinflash_device_connect(u, NULL, NULL, NULL, NULL, &d, &error),
        TWINFLASH_STATUS_INVALID_CONFIG, error, "connection string");
    CHECK(twinflash_device_connect(u, "HostName=h;DeviceId=d;SharedAccessKey=secret!", NULL, NULL,
        NULL, &d, &error) != TWINFLASH_STATUS_OK);
    CHECK(d == NULL && strstr(error.message, "secret") == NULL);

    CHECK_OK(twinflash_updater_next_event(u, 5000, &event, &error), error);
    CHECK(event->text != NULL);
    twinflash_event_free(event);
    CHECK_OK(twinflash_updater_connected(u, true, &error), error);
    CHECK_OK(twinflash_updater_next_outbound(u, 5000, &outbound, &error), error);
    CHECK(outbound->kind == TWINFLASH_OUTBOUND_KIND_READ_TWIN
        || outbound->kind == TWINFLASH_OUTBOUND_KIND_REPORT);
    twinflash_outbound_free(outbound);

    CHECK_OK(twinflash_updater_close(u, &error), error);
    CHECK_OK(twinflash_updater_close(u, &error), error);
    CHECK_ERROR(twinflash_updater_wait(u, -1, NULL, &error), TWINFLASH_STATUS_CLOSED, error, "closed");
    CHECK_ERROR(twinflash_updater_approve(u, NULL, &error), TWINFLASH_STATUS_CLOSED, error, "closed");
    CHECK_ERROR(twinflash_updater_install_file(u, directory, NULL, NULL, NULL, &error),
        TWINFLASH_STATUS_CLOSED, error, "closed");
    while (twinflash_updater_next_event(u, 5000, &event, &error) == TWINFLASH_STATUS_OK)
        twinflash_event_free(event);
    CHECK(twinflash_updater_next_event(u, -1, &event, &error) == TWINFLASH_STATUS_CLOSED);
    CHECK(twinflash_updater_free(u) == TWINFLASH_STATUS_OK);
}

static void images(void)
{
    char path[320];
    twinflash_digests digests;
    FILE *file;
    snprintf(path, sizeof path, "%s/image.bin", directory);
    file = fopen(path, "wb");
    CHECK(file != NULL && fputs("123456789", file) >= 0 && fclose(file) == 0);
    CHECK_OK(twinflash_image_info(path, &digests, &error), error);
    CHECK(digests.size == 9 && digests.crc16 == 0x31c3 && digests.crc32 == 0xcbf43926);
    CHECK_OK(twinflash_image_verify(path, "31c3", &error), error);
    CHECK_ERROR(twinflash_image_verify(path, "31c4", &error), TWINFLASH_STATUS_CRC_MISMATCH, error,
        "crc16:31c3");
    CHECK_ERROR(twinflash_image_verify(path, "xyz", &error), TWINFLASH_STATUS_INVALID_CHECK, error,
        "xyz");
    CHECK_ERROR(twinflash_image_info("/nowhere/at/all", &digests, &error), TWINFLASH_STATUS_STORAGE,
        error, "/nowhere/at/all");
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    snprintf(directory, sizeof directory, "%s", argv[1]);
    versions();
    null_is_freed();
    null_is_named();
    configuration();
    installers();
    updaters();
    images();
    printf("arguments: all refused as they should be\n");
    return 0;
}
