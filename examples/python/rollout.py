"""One firmware for many devices, on azure-iot-hub: an automatic device configuration asks all that a condition names, and a live table
shows how far they are. Contract: configuration (desired properties).

    twinflash hub --device device1 --device device2                  (in a second and a third terminal a device each:)
    python device_no_sdk.py --contract configuration --connection 'HostName=…' --ca …/ca.pem --file app1.bin --state state1
    export REQUESTS_CA_BUNDLE=…/ca.pem                               (not for Azure)
    python rollout.py --connection 'HostName=…;SharedAccessKeyName=…' --tag building=43 --add device1 --add device2 \
        --version 2.0.0 --check $(sha256sum new.bin | cut -d' ' -f1) https://example.com/new.bin

--add gives a device the tag. It ends when every device has ended, with status 1 where one has failed. The configuration stays.
"""

import argparse
import sys
import time

from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager
from azure.iot.hub.models import Configuration, ConfigurationContent, ConfigurationMetrics, QuerySpecification, Twin

FAILED = ("error", "rolledback")


def configuration(given, condition):
    status = "SELECT deviceId FROM devices WHERE configurations.[[{}]].status = 'Applied' AND properties.reported.firmware.fwUpdateStatus = '{}'"
    firmware = {"fwVersion": given.version, "fwPackageURI": given.url, "fwPackageCheckValue": given.check}
    return Configuration(
        id=given.id,
        schema_version="1.0",
        content=ConfigurationContent(device_content={"properties.desired.firmware": firmware}),
        target_condition=condition,
        priority=given.priority,
        metrics=ConfigurationMetrics(
            queries={name: status.format(given.id, name) for name in ("current", "downloading", "applying", *FAILED)}
        ),
    )


def devices(registry, condition):
    """Each device's name, its version, and how far it is."""
    token = None
    while True:
        query = QuerySpecification(query=f"SELECT * FROM devices WHERE {condition}")
        page = registry.query_iot_hub(query, token, 100)
        for twin in page.items:
            yield twin.device_id, twin.properties.reported.get("firmware", {})
        token = page.continuation_token
        if not token:
            return


def state_of(firmware, version):
    """(ended, failed) of a device that is to run this version."""
    status = firmware.get("fwUpdateStatus")
    pending = firmware.get("pendingFwVersion")
    failed = status in FAILED and pending == version
    return failed or (status == "current" and firmware.get("currentFwVersion") == version), failed


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--connection", required=True, help="the service's connection string")
    arguments.add_argument("--tag", required=True, help="NAME=VALUE: the devices that have this tag")
    arguments.add_argument("--add", action="append", default=[], help="a device that is given the tag")
    arguments.add_argument("--version", required=True)
    arguments.add_argument("--check", required=True, help="the image's check value")
    arguments.add_argument("--id", default="rollout", help="the configuration's name")
    arguments.add_argument("--priority", type=int, default=10)
    arguments.add_argument("--interval", type=float, default=1, help="seconds between two looks")
    arguments.add_argument("url")
    given = arguments.parse_args()
    registry = IoTHubRegistryManager.from_connection_string(given.connection)
    tag, _, value = given.tag.partition("=")
    condition = f"tags.{tag} = '{value}'"

    for device in given.add:
        registry.update_twin(device, Twin(tags={tag: value}))
    IoTHubConfigurationManager.from_connection_string(given.connection).create_configuration(configuration(given, condition))

    live = sys.stdout.isatty()
    shown = {}
    while True:
        found = dict(devices(registry, condition))
        lines = {}
        for name, firmware in sorted(found.items()):
            status = firmware.get("fwUpdateStatus", "has not said anything")
            lines[name] = f"{name:24}{firmware.get('currentFwVersion') or '':12}{status:14}{firmware.get('fwUpdateSubstatus') or ''}"
        if live and shown:
            print(f"\033[{len(shown)}A\033[J", end="")
        for name, line in lines.items():
            if live or shown.get(name) != line:
                print(line, flush=True)
        shown = lines
        states = [state_of(firmware, given.version) for firmware in found.values()]
        if states and all(ended for ended, _ in states):
            break
        time.sleep(given.interval)
    failed = sum(failed for _, failed in states)
    print(f"{len(states) - failed} of {len(states)} devices run {given.version}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
