/* The same as device_sdk.c from one thread, in the loop that calls IoTHubDeviceClient_LL_DoWork.
 *
 * device_sdk_ll STATE_DIR TARGET, with the connection string in TWINFLASH_DEVICE. Ends on SIGTERM or
 * SIGINT. Nothing is called back on another thread: events and what is to be sent are polled. */
#include "azure.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

/* Once around. */
static void work(azure *connection, twinflash_updater *updater)
{
    twinflash_outbound *outbound;
    twinflash_event *event;
    struct pollfd waited[2];
    azure_work(connection);
    while (twinflash_updater_next_outbound(updater, 0, &outbound, NULL) == TWINFLASH_STATUS_OK) {
        azure_send(outbound, connection);
        twinflash_outbound_free(outbound);
    }
    while (twinflash_updater_next_event(updater, 0, &event, NULL) == TWINFLASH_STATUS_OK) {
        fprintf(stderr, "%s\n", event->text);
        twinflash_event_free(event);
    }
    /* The SDK wants to be called ten times a second; what is to be sent need not wait for that. */
    waited[0].fd = twinflash_updater_outbound_descriptor(updater);
    waited[1].fd = twinflash_updater_event_descriptor(updater);
    waited[0].events = waited[1].events = POLLIN;
    poll(waited, 2, 50);
}

int main(int argc, char **argv)
{
    const char *connection_string = getenv("TWINFLASH_DEVICE");
    twinflash_error error;
    twinflash_updater *updater = NULL;
    twinflash_builder *builder;
    azure *connection;
    twinflash_status status;
    int opened;
    if (argc != 3 || !connection_string) {
        fprintf(stderr, "usage: TWINFLASH_DEVICE=CONNECTION_STRING device_sdk_ll STATE_DIR TARGET\n");
        return 2;
    }
    connection = azure_new();
    if (!connection)
        return 1;
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    builder = twinflash_builder_new();
    status = twinflash_builder_set_string(builder, "state_dir", argv[1], &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_set_string(builder, "install.file", argv[2], &error);
    /* A method's answer waits for nothing: the thread that serves the network gives it. */
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_set_json(builder,
            "{\"current_version\":\"1.0.0\",\"policy\":{\"answer_wait\":0,\"allow_http\":true}}",
            &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_start(builder, &updater, &error);
    twinflash_builder_free(builder);
    if (status != TWINFLASH_STATUS_OK) {
        fprintf(stderr, "%s (%s)\n", error.message, twinflash_status_name(error.status));
        azure_close(connection);
        return 1;
    }
    opened = azure_open(connection, connection_string, updater);
    if (!opened)
        fprintf(stderr, "the SDK does not take the connection string\n");
    while (opened && !stopped)
        work(connection, updater);
    azure_close(connection);
    twinflash_updater_free(updater);
    return opened ? 0 : 1;
}
