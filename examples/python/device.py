"""The tutorial's device, its simulated update made real: an azure-iot-device client, and three lines for twinflash.

    twinflash hub --device device1
    python device.py --connection 'HostName=…' --ca …/ca.pem --file app.bin

Ends with Ctrl-C. What the device's program does besides (here the method "reboot" and a desired property "interval") goes on.
"""

import argparse
import logging

from azure.iot.device import IoTHubDeviceClient, MethodResponse

import twinflash


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--connection", required=True, help="the device's connection string")
    arguments.add_argument("--ca", help="the hub's certificate authorities (not for Azure)")
    arguments.add_argument("--file", required=True, help="what is updated")
    arguments.add_argument("--state", default="twinflash-state", help="where an update survives a restart")
    arguments.add_argument("--image-ca", help="the certificate authorities of the images' server")
    arguments.add_argument("--allow-http", action="store_true", help="also images over plain http, to try it")
    given = arguments.parse_args()
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")

    authorities = None
    if given.ca:
        with open(given.ca, encoding="ascii") as file:
            authorities = file.read()
    client = IoTHubDeviceClient.create_from_connection_string(given.connection, server_verification_cert=authorities)
    client.connect()

    def on_method(request):
        """What is not the updater's."""
        status, payload = (200, "rebooting") if request.name == "reboot" else (404, f"no method {request.name}")
        client.send_method_response(MethodResponse.create_from_method_request(request, status, payload))

    client.on_twin_desired_properties_patch_received = lambda patch: print("interval:", patch.get("interval"), flush=True)

    updater = twinflash.Updater(
        state_dir=given.state,
        contract="python-firmware-status",
        current_version="1.0.0",
        install=twinflash.FileInstall(given.file),
        http=twinflash.Http(ca=given.image_ca),
        policy=twinflash.Policy(allow_http=given.allow_http),
    )
    events = updater.events()
    attachment = twinflash.attach(client, updater, on_method)
    print("ready", flush=True)
    try:
        for event in events:
            if not isinstance(event, twinflash.Progress):
                print(event, flush=True)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    finally:
        attachment.detach()
        updater.close()
        client.shutdown()


if __name__ == "__main__":
    main()
