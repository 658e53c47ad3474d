/* The connection to the hub, as the programs here want it. azure.c makes it of azure-iot-sdk-c: the only
 * file that touches that SDK. */
#ifndef AZURE_H
#define AZURE_H

#include <twinflash.h>

typedef struct azure azure;

/* Not connected yet. NULL where there is no memory. */
azure *azure_new(void);

/* Connects an updater. 0 where that cannot be. */
int azure_open(azure *connection, const char *connection_string, twinflash_updater *updater);

/* Sends what the updater wants to be sent. It can be its callback, `user_data` then is the connection. */
void azure_send(const twinflash_outbound *outbound, void *user_data);

/* Does what there is to do on the network, and calls back; for a build with AZURE_LL, where the SDK has
 * no thread of its own. */
void azure_work(azure *connection);

/* Before the updater is freed. NULL is fine. */
void azure_close(azure *connection);

#endif
