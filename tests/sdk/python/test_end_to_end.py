"""The whole way, on nobody's word but its own: the unmodified azure-iot-hub SDK calls the method and reads the twin, nginx
serves the image over HTTPS, curl fetches the same image and agrees with what `image info` said of it, and the twinflash agent
updates a file."""

import hashlib
import json
import os
import subprocess

import pytest
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties

from support import Agent, eventually, info_of


@pytest.fixture
def agent(hub, firmware, tmp_path, request):
    device, contract = request.param
    agent = Agent(hub, firmware, tmp_path, device, contract)
    yield agent
    agent.stop()


def call(registry, device, **payload):
    method = CloudToDeviceMethod(method_name="firmwareUpdate", payload=payload)
    return registry.invoke_device_method(device, method)


@pytest.mark.parametrize("agent", [("agent-1", "iothub-dm")], indirect=True)
def test_a_method_updates_a_file(agent, firmware, registry):
    image = os.urandom(5_000_000)
    described = info_of(firmware.put("image.bin", image))
    fetched = subprocess.run(
        ["curl", "--silent", "--fail", "--cacert", firmware.ca, firmware.url("image.bin")], check=True, capture_output=True
    ).stdout
    assert hashlib.sha256(fetched).hexdigest() == described["sha256"]
    assert len(fetched) == described["fwSize"]

    def reported():
        return registry.get_twin("agent-1").properties.reported["iothubDM"]["firmwareUpdate"]

    answer = call(registry, "agent-1", fwPackageUri=firmware.url("image.bin?sig=secret"), fwPackageCheckValue=described["sha256"])
    assert (answer.status, answer.payload) == (200, "FirmwareUpdate started.")
    done = eventually(lambda: reported()["status"] == "applyComplete" and reported(), "applyComplete")
    assert agent.target.read_bytes() == image
    assert done["fwPackageUri"] == firmware.url("image.bin")
    assert "error" not in done

    # The next one can start; it fails at once, says why, and leaves the file alone.
    answer = call(registry, "agent-1", fwPackageUri=firmware.url("none.bin"))
    assert answer.status == 200
    assert reported()["status"] != "applyComplete", "the answer comes after the last outcome is gone"
    failed = eventually(lambda: reported()["status"] == "downloadFailed" and reported(), "downloadFailed")
    assert failed["error"]["code"] == "http-status"
    assert "404" in failed["error"]["message"]

    answer = call(registry, "agent-1", fwPackageUri=firmware.url("image.bin"), fwPackageCheckValue="crc16:0000")
    assert answer.status == 200
    failed = eventually(
        lambda: reported().get("error", {}).get("code") == "crc-mismatch" and reported(), "crc-mismatch"
    )
    assert failed["status"] == "downloadFailed"
    answer = call(registry, "agent-1", fwPackageUri="http://localhost/image.bin")
    assert answer.status == 400
    assert "http://localhost/image.bin" in answer.payload
    assert agent.target.read_bytes() == image
    assert "secret" not in json.dumps(agent.events)


@pytest.mark.parametrize("agent", [("agent-2", "configuration")], indirect=True)
def test_desired_properties_update_a_file(agent, firmware, registry):
    image = os.urandom(3_000_000)
    described = info_of(firmware.put("desired.bin", image))
    wanted = {
        "fwVersion": "1.0.1",
        "fwPackageURI": firmware.url("desired.bin"),
        "fwPackageCheckValue": described["fwPackageCheckValue"],
        "fwSize": described["fwSize"],
    }

    def reported():
        return registry.get_twin("agent-2").properties.reported.get("firmware", {})

    first = eventually(reported, "the first report")
    assert sorted(first) == [
        "currentFwVersion", "fwUpdateStatus", "fwUpdateSubstatus", "lastFwUpdateEndTime", "lastFwUpdateStartTime",
        "pendingFwVersion",
    ]
    assert (first["currentFwVersion"], first["pendingFwVersion"], first["fwUpdateStatus"]) == ("1.0.0", "", "current")
    etag = registry.get_twin("agent-2").etag
    registry.update_twin("agent-2", Twin(properties=TwinProperties(desired={"firmware": wanted})), etag)
    done = eventually(lambda: reported()["currentFwVersion"] == "1.0.1" and reported(), "version 1.0.1")
    assert (done["fwUpdateStatus"], done["fwUpdateSubstatus"], done["pendingFwVersion"]) == ("current", "", "")
    assert done["lastFwUpdateStartTime"] <= done["lastFwUpdateEndTime"]
    assert agent.target.read_bytes() == image
