/* A stand-in for azure-iot-sdk-c, so that the examples build and run without it. Its hub is the terminal:
 *
 *     method NAME JSON    in: a direct method; out: answer STATUS JSON
 *     twin JSON           in: the desired properties are patched
 *     report JSON         out: reported properties, which are acknowledged
 *     slow                in: the next report takes two seconds to be handed over, as where the SDK works
 *                         on the network meanwhile; out: it is being handed over
 */
#include "iothub_device_client.h"
#include "iothub_device_client_ll.h"
#include "iothubtransportmqtt.h"

#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 64 };

struct stand_in {
    pthread_mutex_t lock; /* of what waits */
    IOTHUB_CLIENT_CONNECTION_STATUS_CALLBACK on_status;
    IOTHUB_CLIENT_DEVICE_METHOD_CALLBACK_ASYNC on_method;
    IOTHUB_CLIENT_DEVICE_TWIN_CALLBACK on_twin, read[MOST];
    IOTHUB_CLIENT_REPORTED_STATE_CALLBACK reported[MOST];
    void *status_context, *method_context, *twin_context, *read_context[MOST], *report_context[MOST];
    int reads, reports;
    bool connected, ended, slow;
    int sending; /* calls that have not returned */
    char line[8192];
    size_t length;
};

int IoTHub_Init(void) { return 0; }
void IoTHub_Deinit(void) { }
const void *MQTT_Protocol(void) { return NULL; }

static void command(struct stand_in *client, char *line)
{
    char *name = line + 7, *json;
    if (strcmp(line, "slow") == 0) {
        pthread_mutex_lock(&client->lock);
        client->slow = true;
        pthread_mutex_unlock(&client->lock);
    } else if (strncmp(line, "twin ", 5) == 0 && client->on_twin) {
        client->on_twin(DEVICE_TWIN_UPDATE_PARTIAL, (unsigned char *)line + 5, strlen(line + 5),
            client->twin_context);
    } else if (strncmp(line, "method ", 7) == 0 && client->on_method
        && (json = strchr(name, ' ')) != NULL) {
        unsigned char *response = NULL;
        size_t length = 0;
        int status;
        *json++ = 0;
        status = client->on_method(name, (unsigned char *)json, strlen(json), &response, &length,
            client->method_context);
        printf("answer %d %.*s\n", status, (int)length, response ? (char *)response : "");
        fflush(stdout);
        free(response);
    }
}

void IoTHubDeviceClient_LL_DoWork(IOTHUB_DEVICE_CLIENT_LL_HANDLE client)
{
    struct pollfd input;
    if (!client->connected && client->on_status) {
        client->connected = true;
        client->on_status(IOTHUB_CLIENT_CONNECTION_AUTHENTICATED, IOTHUB_CLIENT_CONNECTION_OK,
            client->status_context);
    }
    /* Callbacks may call back in: what waits now is taken first. */
    for (;;) {
        static const char twin[] = "{\"desired\":{\"$version\":1},\"reported\":{\"$version\":1}}";
        IOTHUB_CLIENT_DEVICE_TWIN_CALLBACK read = NULL;
        IOTHUB_CLIENT_REPORTED_STATE_CALLBACK reported = NULL;
        void *context = NULL;
        pthread_mutex_lock(&client->lock);
        if (client->reads > 0) {
            read = client->read[--client->reads];
            context = client->read_context[client->reads];
        } else if (client->reports > 0) {
            reported = client->reported[--client->reports];
            context = client->report_context[client->reports];
        }
        pthread_mutex_unlock(&client->lock);
        if (read)
            read(DEVICE_TWIN_UPDATE_COMPLETE, (const unsigned char *)twin, sizeof twin - 1, context);
        else if (reported)
            reported(204, context);
        else
            break;
    }
    input.fd = STDIN_FILENO;
    input.events = POLLIN;
    if (!client->ended && poll(&input, 1, 0) > 0) {
        ssize_t got = read(STDIN_FILENO, client->line + client->length,
            sizeof client->line - 1 - client->length);
        char *end;
        client->ended = got <= 0;
        client->length += got > 0 ? (size_t)got : 0;
        client->line[client->length] = 0;
        while ((end = strchr(client->line, '\n')) != NULL) {
            *end++ = 0;
            command(client, client->line);
            client->length -= (size_t)(end - client->line);
            memmove(client->line, end, client->length + 1);
        }
    }
}

IOTHUB_DEVICE_CLIENT_LL_HANDLE IoTHubDeviceClient_LL_CreateFromConnectionString(
    const char *connection_string, IOTHUB_CLIENT_TRANSPORT_PROVIDER protocol)
{
    struct stand_in *client = (struct stand_in *)calloc(1, sizeof *client);
    (void)connection_string, (void)protocol;
    if (client)
        pthread_mutex_init(&client->lock, NULL);
    return client;
}

void IoTHubDeviceClient_LL_Destroy(IOTHUB_DEVICE_CLIENT_LL_HANDLE client)
{
    if (client->sending > 0) { /* The SDK would not notice, and crash sooner or later. */
        fputs("the client is destroyed while it is used\n", stderr);
        abort();
    }
    /* As the SDK does: what was not acknowledged is lost. */
    while (client->reports > 0) {
        client->reports--;
        client->reported[client->reports](0, client->report_context[client->reports]);
    }
    pthread_mutex_destroy(&client->lock);
    free(client);
}

IOTHUB_CLIENT_RESULT IoTHubDeviceClient_LL_SetConnectionStatusCallback(
    IOTHUB_DEVICE_CLIENT_LL_HANDLE client, IOTHUB_CLIENT_CONNECTION_STATUS_CALLBACK callback,
    void *context)
{
    client->on_status = callback;
    client->status_context = context;
    return IOTHUB_CLIENT_OK;
}

IOTHUB_CLIENT_RESULT IoTHubDeviceClient_LL_SetDeviceMethodCallback(
    IOTHUB_DEVICE_CLIENT_LL_HANDLE client, IOTHUB_CLIENT_DEVICE_METHOD_CALLBACK_ASYNC callback,
    void *context)
{
    client->on_method = callback;
    client->method_context = context;
    return IOTHUB_CLIENT_OK;
}

IOTHUB_CLIENT_RESULT IoTHubDeviceClient_LL_SetDeviceTwinCallback(IOTHUB_DEVICE_CLIENT_LL_HANDLE client,
    IOTHUB_CLIENT_DEVICE_TWIN_CALLBACK callback, void *context)
{
    client->on_twin = callback;
    client->twin_context = context;
    return IOTHUB_CLIENT_OK;
}

IOTHUB_CLIENT_RESULT IoTHubDeviceClient_LL_GetTwinAsync(IOTHUB_DEVICE_CLIENT_LL_HANDLE client,
    IOTHUB_CLIENT_DEVICE_TWIN_CALLBACK callback, void *context)
{
    IOTHUB_CLIENT_RESULT result = IOTHUB_CLIENT_ERROR;
    pthread_mutex_lock(&client->lock);
    if (client->reads < MOST) {
        client->read[client->reads] = callback;
        client->read_context[client->reads++] = context;
        result = IOTHUB_CLIENT_OK;
    }
    pthread_mutex_unlock(&client->lock);
    return result;
}

IOTHUB_CLIENT_RESULT IoTHubDeviceClient_LL_SendReportedState(IOTHUB_DEVICE_CLIENT_LL_HANDLE client,
    const unsigned char *json, size_t length, IOTHUB_CLIENT_REPORTED_STATE_CALLBACK callback,
    void *context)
{
    IOTHUB_CLIENT_RESULT result = IOTHUB_CLIENT_ERROR;
    pthread_mutex_lock(&client->lock);
    if (client->slow) {
        client->slow = false;
        client->sending++;
        pthread_mutex_unlock(&client->lock);
        puts("slow");
        fflush(stdout);
        poll(NULL, 0, 2000);
        pthread_mutex_lock(&client->lock);
        client->sending--;
    }
    if (client->reports < MOST) {
        printf("report %.*s\n", (int)length, (const char *)json);
        fflush(stdout);
        client->reported[client->reports] = callback;
        client->report_context[client->reports++] = context;
        result = IOTHUB_CLIENT_OK;
    }
    pthread_mutex_unlock(&client->lock);
    return result;
}

/* The same with a thread. */
struct stand_in_threaded {
    struct stand_in *client;
    pthread_mutex_t lock; /* of stopped and started */
    pthread_t thread;
    bool started, stopped;
};

static void *run(void *data)
{
    IOTHUB_DEVICE_CLIENT_HANDLE threaded = (IOTHUB_DEVICE_CLIENT_HANDLE)data;
    for (;;) {
        bool stopped;
        pthread_mutex_lock(&threaded->lock);
        stopped = threaded->stopped;
        pthread_mutex_unlock(&threaded->lock);
        if (stopped)
            return NULL;
        IoTHubDeviceClient_LL_DoWork(threaded->client);
        poll(NULL, 0, 1);
    }
}

IOTHUB_DEVICE_CLIENT_HANDLE IoTHubDeviceClient_CreateFromConnectionString(
    const char *connection_string, IOTHUB_CLIENT_TRANSPORT_PROVIDER protocol)
{
    IOTHUB_DEVICE_CLIENT_HANDLE threaded = (IOTHUB_DEVICE_CLIENT_HANDLE)calloc(1, sizeof *threaded);
    if (!threaded)
        return NULL;
    threaded->client = IoTHubDeviceClient_LL_CreateFromConnectionString(connection_string, protocol);
    pthread_mutex_init(&threaded->lock, NULL);
    return threaded;
}

void IoTHubDeviceClient_Destroy(IOTHUB_DEVICE_CLIENT_HANDLE threaded)
{
    pthread_mutex_lock(&threaded->lock);
    threaded->stopped = true;
    pthread_mutex_unlock(&threaded->lock);
    if (threaded->started)
        pthread_join(threaded->thread, NULL);
    IoTHubDeviceClient_LL_Destroy(threaded->client);
    pthread_mutex_destroy(&threaded->lock);
    free(threaded);
}

IOTHUB_CLIENT_RESULT IoTHubDeviceClient_SetConnectionStatusCallback(
    IOTHUB_DEVICE_CLIENT_HANDLE threaded, IOTHUB_CLIENT_CONNECTION_STATUS_CALLBACK callback,
    void *context)
{
    return IoTHubDeviceClient_LL_SetConnectionStatusCallback(threaded->client, callback, context);
}

IOTHUB_CLIENT_RESULT IoTHubDeviceClient_SetDeviceMethodCallback(IOTHUB_DEVICE_CLIENT_HANDLE threaded,
    IOTHUB_CLIENT_DEVICE_METHOD_CALLBACK_ASYNC callback, void *context)
{
    return IoTHubDeviceClient_LL_SetDeviceMethodCallback(threaded->client, callback, context);
}

/* The last that is set here: now it starts. */
IOTHUB_CLIENT_RESULT IoTHubDeviceClient_SetDeviceTwinCallback(IOTHUB_DEVICE_CLIENT_HANDLE threaded,
    IOTHUB_CLIENT_DEVICE_TWIN_CALLBACK callback, void *context)
{
    IoTHubDeviceClient_LL_SetDeviceTwinCallback(threaded->client, callback, context);
    threaded->started = pthread_create(&threaded->thread, NULL, run, threaded) == 0;
    return threaded->started ? IOTHUB_CLIENT_OK : IOTHUB_CLIENT_ERROR;
}

IOTHUB_CLIENT_RESULT IoTHubDeviceClient_GetTwinAsync(IOTHUB_DEVICE_CLIENT_HANDLE threaded,
    IOTHUB_CLIENT_DEVICE_TWIN_CALLBACK callback, void *context)
{
    return IoTHubDeviceClient_LL_GetTwinAsync(threaded->client, callback, context);
}

IOTHUB_CLIENT_RESULT IoTHubDeviceClient_SendReportedState(IOTHUB_DEVICE_CLIENT_HANDLE threaded,
    const unsigned char *json, size_t length, IOTHUB_CLIENT_REPORTED_STATE_CALLBACK callback,
    void *context)
{
    return IoTHubDeviceClient_LL_SendReportedState(threaded->client, json, length, callback, context);
}
