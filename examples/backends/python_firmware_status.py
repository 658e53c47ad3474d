"""The back end of the tutorial "Use device management to initiate a device firmware update" (Python): calls the direct method
firmwareUpdate, then looks for words in the text of the device's twin, every six seconds and until it says "completed".

    pip install -r requirements.txt
    export REQUESTS_CA_BUNDLE=<the hub's certificate authority>     (not for Azure)
    python python_firmware_status.py DEVICE https://example.com/firmware.bin

The service's connection string is in TWINFLASH_SERVICE or follows --service. Contract: python-firmware-status.
"""

import argparse
import json
import os
import time

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod

WORDS = {
    '"firmwareStatus":"standBy"': "Waiting on device...",
    '"firmwareStatus":"downloading"': "Downloading firmware...",
    '"firmwareStatus":"applying"': "Download complete, applying firmware...",
    '"firmwareStatus":"completed"': "Firmware applied",
}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("device")
    arguments.add_argument("url")
    arguments.add_argument("--check", help="the image's check value, if the device is to be given one")
    arguments.add_argument("--interval", type=float, default=6, help="seconds")
    arguments.add_argument("--service", default=os.environ.get("TWINFLASH_SERVICE"))
    given = arguments.parse_args()
    registry = IoTHubRegistryManager.from_connection_string(given.service)

    payload = {"fwPackageUri": given.url}
    if given.check:
        payload["fwPackageCheckValue"] = given.check
    method = CloudToDeviceMethod(method_name="firmwareUpdate", payload=payload, response_timeout_in_seconds=60)
    print("Direct method called.")
    print(json.dumps(registry.invoke_device_method(given.device, method).payload), flush=True)

    while True:
        # The SDK gives an object; the tutorial searched the text, which the hub writes without spaces.
        text = registry.protocol.devices.get_twin(given.device, raw=True).response.text
        found = next((words for words in WORDS if words in text), None)
        print(WORDS.get(found, "Unknown status"), flush=True)
        if found == '"firmwareStatus":"completed"':
            print("Reported properties:", text, flush=True)
            break
        time.sleep(given.interval)


if __name__ == "__main__":
    main()
