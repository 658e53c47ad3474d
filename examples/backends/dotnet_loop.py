"""The back end of the .NET tutorial "Use device management to initiate a device firmware update", its loop in Python: reads the
twin every 500 ms, shows the device's part of it whenever it moved, and stops at an end. The loop is there before the direct
method is called, whose payload is the tutorial's own text: no JSON, but Azure takes it.

    pip install -r requirements.txt
    export REQUESTS_CA_BUNDLE=<the hub's certificate authority>     (not for Azure)
    python dotnet_loop.py DEVICE https://example.com/firmware.bin

The service's connection string is in TWINFLASH_SERVICE or follows --service. Contract: iothub-dm.
"""

import argparse
import json
import os
import threading
import time
from datetime import datetime, timezone

import requests
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.sastoken import SasToken

ENDS = ("downloadFailed", "applyFailed", "applyComplete")


def moved_at(reported):
    """When the reported properties changed last. Python reads no more than six digits of a second."""
    text = reported["$metadata"]["$lastUpdated"].rstrip("Z")
    return datetime.fromisoformat(text[:26]).replace(tzinfo=timezone.utc)


def follow(registry, device, start):
    last = start
    while True:
        reported = registry.get_twin(device).properties.reported
        if moved_at(reported) > last:
            last = moved_at(reported)
            print(json.dumps(reported["iothubDM"]), flush=True)
            if reported["iothubDM"]["firmwareUpdate"]["status"] in ENDS:
                print("Stop polling.", flush=True)
                return
        time.sleep(0.5)


def call(service, device, url):
    """The SDK would write JSON: the request is made by hand, as the .NET SDK makes it."""
    fields = dict(field.split("=", 1) for field in service.split(";"))
    payload = "{ fwPackageUri : '%s' }" % url
    body = '{"methodName":"firmwareUpdate","responseTimeoutInSeconds":30,"payload":%s}' % payload
    host = fields["HostName"]
    answer = requests.post(
        f"https://{host}/twins/{device}/methods?api-version=2021-04-12",
        data=body.encode(),
        headers={
            "Authorization": str(SasToken(host, fields["SharedAccessKey"], fields["SharedAccessKeyName"])),
            "Content-Type": "application/json; charset=utf-8",
        },
        timeout=60,
    )
    answer.raise_for_status()
    print("Invoked firmware update on device.", answer.text, flush=True)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("device")
    arguments.add_argument("url")
    arguments.add_argument("--service", default=os.environ.get("TWINFLASH_SERVICE"))
    given = arguments.parse_args()
    registry = IoTHubRegistryManager.from_connection_string(given.service)
    loop = threading.Thread(target=follow, args=(registry, given.device, datetime.now(timezone.utc)))
    loop.start()
    call(given.service, given.device, given.url)
    loop.join()


if __name__ == "__main__":
    main()
