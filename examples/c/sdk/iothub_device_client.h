/* A stand-in for the header of azure-iot-sdk-c of this name. */
#ifndef STAND_IN_IOTHUB_DEVICE_CLIENT_H
#define STAND_IN_IOTHUB_DEVICE_CLIENT_H

#include "iothub.h"

typedef struct stand_in_threaded *IOTHUB_DEVICE_CLIENT_HANDLE;
#define STAND_IN_THREADED(name) IoTHubDeviceClient_##name
STAND_IN_FUNCTIONS(IOTHUB_DEVICE_CLIENT_HANDLE, STAND_IN_THREADED);

#endif
