/* A device application on azure-iot-sdk-c whose firmware updates twinflash does.
 *
 * device_sdk STATE_DIR TARGET, with the connection string in TWINFLASH_DEVICE. Ends on SIGTERM or
 * SIGINT. The SDK calls back on its own thread; this one sends what there is to send. */
#include "azure.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static void on_event(const twinflash_event *event, void *user_data)
{
    (void)user_data;
    fprintf(stderr, "%s\n", event->text);
}

int main(int argc, char **argv)
{
    const char *connection_string = getenv("TWINFLASH_DEVICE");
    twinflash_error error;
    twinflash_updater *updater = NULL;
    twinflash_outbound *outbound;
    twinflash_builder *builder = twinflash_builder_new();
    azure *connection;
    twinflash_status status = TWINFLASH_STATUS_OK;
    if (argc != 3 || !connection_string) {
        fprintf(stderr, "usage: TWINFLASH_DEVICE=CONNECTION_STRING device_sdk STATE_DIR TARGET\n");
        return 2;
    }
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    status = twinflash_builder_set_string(builder, "state_dir", argv[1], &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_set_string(builder, "install.file", argv[2], &error);
    /* A method's answer waits for nothing: the SDK's thread, which serves the network, gives it. */
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_set_json(builder,
            "{\"current_version\":\"1.0.0\",\"policy\":{\"answer_wait\":0,\"allow_http\":true}}",
            &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_on_event(builder, on_event, NULL, NULL, &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_start(builder, &updater, &error);
    twinflash_builder_free(builder);
    if (status != TWINFLASH_STATUS_OK) {
        fprintf(stderr, "%s (%s)\n", error.message, twinflash_status_name(error.status));
        return 1;
    }
    connection = azure_open(connection_string, updater);
    while (connection && !stopped)
        if (twinflash_updater_next_outbound(updater, 200, &outbound, NULL) == TWINFLASH_STATUS_OK)
            azure_send(connection, outbound);
    if (connection)
        azure_close(connection);
    twinflash_updater_free(updater);
    return connection ? 0 : 1;
}
