/* A device application on azure-iot-sdk-c whose firmware updates twinflash does.
 *
 * device_sdk STATE_DIR TARGET, with the connection string in TWINFLASH_DEVICE. Ends on SIGTERM or
 * SIGINT. The SDK calls back on its own thread, the updater on another; this one waits. */
#include "azure.h"

#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

/* The updater calls azure_send no more. */
static sem_t all_sent;

static void on_all_sent(void *user_data)
{
    (void)user_data;
    sem_post(&all_sent);
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
    twinflash_builder *builder;
    azure *connection;
    twinflash_status status;
    sigset_t signals;
    int signal, opened;
    if (argc != 3 || !connection_string) {
        fprintf(stderr, "usage: TWINFLASH_DEVICE=CONNECTION_STRING device_sdk STATE_DIR TARGET\n");
        return 2;
    }
    connection = azure_new();
    if (!connection || sem_init(&all_sent, 0, 0) != 0)
        return 1;
    /* Blocked in every thread that is started from here on, and waited for below. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    builder = twinflash_builder_new();
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
        status = twinflash_builder_on_outbound(builder, azure_send, connection, on_all_sent, &error);
    if (status == TWINFLASH_STATUS_OK)
        status = twinflash_builder_start(builder, &updater, &error);
    twinflash_builder_free(builder);
    if (status != TWINFLASH_STATUS_OK) {
        fprintf(stderr, "%s (%s)\n", error.message, twinflash_status_name(error.status));
        azure_close(connection);
        return 1;
    }
    opened = azure_open(connection, connection_string, updater);
    if (opened)
        sigwait(&signals, &signal);
    else
        fprintf(stderr, "the SDK does not take the connection string\n");
    /* Each of the two calls the other. So the updater ends first, but stays for the SDK to call; and as a
     * close waits but a second for an azure_send that hangs, the connection goes when that has returned. */
    twinflash_updater_close(updater, NULL);
    while (sem_wait(&all_sent) != 0)
        continue; /* a signal */
    azure_close(connection);
    twinflash_updater_free(updater);
    return opened ? 0 : 1;
}
