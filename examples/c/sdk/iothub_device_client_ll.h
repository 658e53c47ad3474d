/* A stand-in for the header of azure-iot-sdk-c of this name. */
#ifndef STAND_IN_IOTHUB_DEVICE_CLIENT_LL_H
#define STAND_IN_IOTHUB_DEVICE_CLIENT_LL_H

#include "iothub.h"

typedef struct stand_in *IOTHUB_DEVICE_CLIENT_LL_HANDLE;
#define STAND_IN_LL(name) IoTHubDeviceClient_LL_##name
STAND_IN_FUNCTIONS(IOTHUB_DEVICE_CLIENT_LL_HANDLE, STAND_IN_LL);
void IoTHubDeviceClient_LL_DoWork(IOTHUB_DEVICE_CLIENT_LL_HANDLE);

#endif
