/* A stand-in for the header of azure-iot-sdk-c of this name: what the examples use of it. */
#ifndef STAND_IN_IOTHUB_H
#define STAND_IN_IOTHUB_H

#include <stddef.h>

typedef enum { IOTHUB_CLIENT_OK, IOTHUB_CLIENT_INVALID_ARG, IOTHUB_CLIENT_ERROR } IOTHUB_CLIENT_RESULT;
typedef enum {
    IOTHUB_CLIENT_CONNECTION_AUTHENTICATED,
    IOTHUB_CLIENT_CONNECTION_UNAUTHENTICATED
} IOTHUB_CLIENT_CONNECTION_STATUS;
typedef enum {
    IOTHUB_CLIENT_CONNECTION_NO_NETWORK = 4,
    IOTHUB_CLIENT_CONNECTION_OK = 6
} IOTHUB_CLIENT_CONNECTION_STATUS_REASON;
typedef enum { DEVICE_TWIN_UPDATE_COMPLETE, DEVICE_TWIN_UPDATE_PARTIAL } DEVICE_TWIN_UPDATE_STATE;

typedef const void *(*IOTHUB_CLIENT_TRANSPORT_PROVIDER)(void);
typedef void (*IOTHUB_CLIENT_CONNECTION_STATUS_CALLBACK)(IOTHUB_CLIENT_CONNECTION_STATUS,
    IOTHUB_CLIENT_CONNECTION_STATUS_REASON, void *);
typedef void (*IOTHUB_CLIENT_DEVICE_TWIN_CALLBACK)(DEVICE_TWIN_UPDATE_STATE, const unsigned char *,
    size_t, void *);
typedef void (*IOTHUB_CLIENT_REPORTED_STATE_CALLBACK)(int, void *);
typedef int (*IOTHUB_CLIENT_DEVICE_METHOD_CALLBACK_ASYNC)(const char *, const unsigned char *, size_t,
    unsigned char **, size_t *, void *);

int IoTHub_Init(void);
void IoTHub_Deinit(void);

/* The functions that are there twice, of the same kind. */
#define STAND_IN_FUNCTIONS(HANDLE, NAME)                                                             \
    HANDLE NAME(CreateFromConnectionString)(const char *, IOTHUB_CLIENT_TRANSPORT_PROVIDER);         \
    void NAME(Destroy)(HANDLE);                                                                      \
    IOTHUB_CLIENT_RESULT NAME(SetConnectionStatusCallback)(HANDLE,                                   \
        IOTHUB_CLIENT_CONNECTION_STATUS_CALLBACK, void *);                                           \
    IOTHUB_CLIENT_RESULT NAME(SetDeviceMethodCallback)(HANDLE,                                       \
        IOTHUB_CLIENT_DEVICE_METHOD_CALLBACK_ASYNC, void *);                                         \
    IOTHUB_CLIENT_RESULT NAME(SetDeviceTwinCallback)(HANDLE, IOTHUB_CLIENT_DEVICE_TWIN_CALLBACK,     \
        void *);                                                                                     \
    IOTHUB_CLIENT_RESULT NAME(GetTwinAsync)(HANDLE, IOTHUB_CLIENT_DEVICE_TWIN_CALLBACK, void *);     \
    IOTHUB_CLIENT_RESULT NAME(SendReportedState)(HANDLE, const unsigned char *, size_t,              \
        IOTHUB_CLIENT_REPORTED_STATE_CALLBACK, void *)

#endif
