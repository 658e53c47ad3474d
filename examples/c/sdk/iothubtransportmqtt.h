/* A stand-in for the header of azure-iot-sdk-c of this name. */
#ifndef STAND_IN_IOTHUBTRANSPORTMQTT_H
#define STAND_IN_IOTHUBTRANSPORTMQTT_H

const void *MQTT_Protocol(void);

#endif
