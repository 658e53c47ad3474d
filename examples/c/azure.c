/* azure-iot-sdk-c and twinflash: five callbacks, each of a call or two.
 *
 * With AZURE_LL it is made for the functions with _LL_ in their names, which one thread serves by
 * azure_work; without it for those of the same name that have a thread. */
#include "azure.h"

#include <iothub.h>
#include <iothub_device_client.h>
#include <iothub_device_client_ll.h>
#include <iothubtransportmqtt.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#ifdef AZURE_LL
#define CLIENT(name) IoTHubDeviceClient_LL_##name
#define CLIENT_HANDLE IOTHUB_DEVICE_CLIENT_LL_HANDLE
#else
#define CLIENT(name) IoTHubDeviceClient_##name
#define CLIENT_HANDLE IOTHUB_DEVICE_CLIENT_HANDLE
#endif

struct azure {
    bool initialized;
    CLIENT_HANDLE client;
    twinflash_updater *updater;
};

/* A report on its way. */
typedef struct report {
    azure *connection;
    uint64_t id;
} report;

static void on_status(IOTHUB_CLIENT_CONNECTION_STATUS status,
    IOTHUB_CLIENT_CONNECTION_STATUS_REASON reason, void *context)
{
    (void)reason;
    twinflash_updater_connected(((azure *)context)->updater,
        status == IOTHUB_CLIENT_CONNECTION_AUTHENTICATED, NULL);
}

static void on_twin(DEVICE_TWIN_UPDATE_STATE state, const unsigned char *json, size_t length,
    void *context)
{
    twinflash_updater *updater = ((azure *)context)->updater;
    if (json)
        twinflash_updater_handle_twin(updater, state == DEVICE_TWIN_UPDATE_COMPLETE, json, length, NULL);
    else
        twinflash_updater_twin_failed(updater, NULL); /* It could not be read in time. */
}

static void on_reported(int status, void *context)
{
    report *sent = (report *)context;
    twinflash_updater_report_done(sent->connection->updater, sent->id, status, NULL);
    free(sent);
}

static int on_method(const char *name, const unsigned char *payload, size_t length,
    unsigned char **response, size_t *response_length, void *context)
{
    azure *connection = (azure *)context;
    static const char none[] = "\"no such method\"";
    twinflash_answer answer;
    if (twinflash_updater_handle_method(connection->updater, name, payload, length, &answer, NULL)
        == TWINFLASH_STATUS_OK) {
#ifdef AZURE_LL
        /* The SDK has the first report before the answer, and sends it in its next round: a back end reads
         * the last update's outcome for some milliseconds at most. (With threads the updater has called
         * azure_send by now.) */
        twinflash_outbound *outbound;
        while (twinflash_updater_next_outbound(connection->updater, 0, &outbound, NULL)
            == TWINFLASH_STATUS_OK) {
            azure_send(outbound, connection);
            twinflash_outbound_free(outbound);
        }
#endif
        *response = (unsigned char *)answer.payload; /* The SDK calls free(). */
        *response_length = answer.payload_length;
        return answer.status;
    }
    /* The application's own methods would be here. */
    *response_length = sizeof none - 1;
    *response = (unsigned char *)malloc(sizeof none);
    if (*response)
        memcpy(*response, none, sizeof none);
    return 404;
}

void azure_send(const twinflash_outbound *outbound, void *user_data)
{
    azure *connection = (azure *)user_data;
    if (outbound->kind == TWINFLASH_OUTBOUND_KIND_READ_TWIN) {
        if (CLIENT(GetTwinAsync)(connection->client, on_twin, connection) != IOTHUB_CLIENT_OK)
            twinflash_updater_twin_failed(connection->updater, NULL);
    } else if (outbound->kind == TWINFLASH_OUTBOUND_KIND_REPORT) {
        report *sent = (report *)malloc(sizeof *sent);
        if (sent) {
            sent->connection = connection;
            sent->id = outbound->id;
        }
        if (!sent
            || CLIENT(SendReportedState)(connection->client, (const unsigned char *)outbound->patch,
                   outbound->patch_length, on_reported, sent)
                != IOTHUB_CLIENT_OK) {
            /* Lost: the updater sends it again when it is time. */
            twinflash_updater_report_done(connection->updater, outbound->id, 0, NULL);
            free(sent);
        }
    }
}

azure *azure_new(void)
{
    return (azure *)calloc(1, sizeof(azure));
}

int azure_open(azure *connection, const char *connection_string, twinflash_updater *updater)
{
    connection->updater = updater;
    connection->initialized = IoTHub_Init() == 0;
    if (!connection->initialized)
        return 0;
    connection->client = CLIENT(CreateFromConnectionString)(connection_string, MQTT_Protocol);
    return connection->client
        && CLIENT(SetConnectionStatusCallback)(connection->client, on_status, connection)
            == IOTHUB_CLIENT_OK
        && CLIENT(SetDeviceMethodCallback)(connection->client, on_method, connection)
            == IOTHUB_CLIENT_OK
        && CLIENT(SetDeviceTwinCallback)(connection->client, on_twin, connection)
            == IOTHUB_CLIENT_OK;
}

void azure_work(azure *connection)
{
#ifdef AZURE_LL
    /* Twice: what a callback of the first round has given to be sent goes out in the second. */
    CLIENT(DoWork)(connection->client);
    CLIENT(DoWork)(connection->client);
#else
    (void)connection;
#endif
}

void azure_close(azure *connection)
{
    if (!connection)
        return;
    if (connection->client)
        CLIENT(Destroy)(connection->client);
    if (connection->initialized)
        IoTHub_Deinit();
    free(connection);
}
