/* The connection to the hub, as the programs here want it. azure.c makes it of azure-iot-sdk-c: the only
 * file that touches that SDK. */
#ifndef AZURE_H
#define AZURE_H

#include <twinflash.h>

typedef struct azure azure;

/* Connects an updater. NULL where that cannot be. */
azure *azure_open(const char *connection_string, twinflash_updater *updater);

/* Sends what the updater wants to be sent, and frees it. */
void azure_send(azure *connection, twinflash_outbound *outbound);

/* Does what there is to do on the network, and calls back; for a build with AZURE_LL, where the SDK has
 * no thread of its own. */
void azure_work(azure *connection);

/* Before the updater is freed. */
void azure_close(azure *connection);

#endif
