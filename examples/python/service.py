"""The tutorial's back end on azure-iot-hub: calls the direct method firmwareUpdate, shows the answer, and follows the device's
reported properties until the update has ended. Its exit status says how.

    export REQUESTS_CA_BUNDLE=…/ca.pem                              (not for Azure)
    python service.py --connection 'HostName=…' device1 https://example.com/firmware.bin
"""

import argparse
import json
import sys
import time

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--connection", required=True, help="the service's connection string")
    arguments.add_argument("--check", help="the image's check value, if the device is to be given one")
    arguments.add_argument("--interval", type=float, default=0.5, help="seconds between two looks at the twin")
    arguments.add_argument("device")
    arguments.add_argument("url")
    given = arguments.parse_args()
    registry = IoTHubRegistryManager.from_connection_string(given.connection)

    payload = {"fwPackageUri": given.url}
    if given.check:
        payload["fwPackageCheckValue"] = given.check
    method = CloudToDeviceMethod(method_name="firmwareUpdate", payload=payload, response_timeout_in_seconds=60)
    answer = registry.invoke_device_method(given.device, method)
    print(answer.status, json.dumps(answer.payload), flush=True)
    if answer.status != 200:
        sys.exit(1)

    last = None
    while last not in ("completed", "failed"):
        reported = registry.get_twin(given.device).properties.reported
        if reported.get("firmwareStatus") != last:
            last = reported.get("firmwareStatus")
            print(last, flush=True)
        time.sleep(given.interval)
    if last == "failed":
        print(json.dumps(reported.get("firmwareError")), flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
