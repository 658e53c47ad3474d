"""The whole way: the unmodified SDKs of device and service, `twinflash hub`, nginx, and the package."""

import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("azure.iot.device")
if "TWINFLASH_HUB" not in os.environ:
    pytest.skip("TWINFLASH_HUB starts the hub: see tests/sdk/python/support.py", allow_module_level=True)

from azure.iot.device import IoTHubDeviceClient, MethodResponse  # noqa: E402
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties  # noqa: E402

import twinflash  # noqa: E402
from conftest import ROOT, eventually  # noqa: E402
from support import firmware, hub, registry  # noqa: E402, F401

IMAGE = os.urandom(3_000_000)


@pytest.fixture
def client(hub):  # noqa: F811
    client = IoTHubDeviceClient.create_from_connection_string(hub.device("d1"), server_verification_cert=hub.ca_pem)
    client.connect()
    yield client
    client.shutdown()


@pytest.fixture
def updater(make, firmware):  # noqa: F811
    firmware.put("image.bin", IMAGE)
    return make(http=twinflash.Http(ca=firmware.ca), policy=twinflash.Policy(progress_interval=0))


def call(registry, device, name, payload):  # noqa: F811
    result = registry.invoke_device_method(device, CloudToDeviceMethod(method_name=name, payload=payload))
    return result.status, result.payload


def asked(url):
    return {"fwPackageUri": url, "fwPackageCheckValue": hashlib.sha256(IMAGE).hexdigest()}


def reported_of(registry, device):  # noqa: F811
    return registry.get_twin(device).properties.reported


def test_attached_to_the_sdks_client(client, updater, registry, firmware, tmp_path, caplog):  # noqa: F811
    others, patches, changes = [], [], []

    def own_method(request):
        others.append((request.name, request.payload))
        client.send_method_response(MethodResponse.create_from_method_request(request, 200, "mine"))

    client.on_method_request_received = own_method
    client.on_twin_desired_properties_patch_received = patches.append
    client.on_connection_state_change = lambda: changes.append(client.connected)
    attachment = twinflash.attach(client, updater)

    assert call(registry, "d1", "firmwareUpdate", asked(firmware.url("image.bin?sig=secret"))) == (200, "FirmwareUpdate started.")
    assert updater.wait(30) == twinflash.Outcome("completed")
    assert (tmp_path / "app.bin").read_bytes() == IMAGE
    done = reported_of(registry, "d1")["iothubDM"]["firmwareUpdate"]
    assert (done["status"], done["fwPackageUri"]) == ("applyComplete", firmware.url("image.bin")), "wait waits for the hub"

    # A failure is told, too, and leaves the file alone.
    missing = {"fwPackageUri": firmware.url("none.bin"), "fwPackageCheckValue": "00" * 32}
    assert call(registry, "d1", "firmwareUpdate", missing)[0] == 200
    assert updater.wait(30).failure.code == "http-status"
    assert reported_of(registry, "d1")["iothubDM"]["firmwareUpdate"]["error"]["code"] == "http-status"
    assert call(registry, "d1", "firmwareUpdate", {"fwPackageUri": "test.com"})[0] == 400

    # The application's own keep working.
    assert call(registry, "d1", "reboot", {"now": True}) == (200, "mine")
    assert others == [("reboot", {"now": True})]
    registry.update_twin("d1", Twin(properties=TwinProperties(desired={"interval": 5})))
    eventually(lambda: patches and patches[-1].get("interval") == 5, "the application's patch")

    # The SDK's connection goes and comes: the next update is heard of and told.
    client.disconnect()
    client.connect()
    eventually(lambda: changes[-2:] == [False, True], "the application's handler of changes")
    image = os.urandom(1_000_000)
    firmware.put("second.bin", image)
    assert call(registry, "d1", "firmwareUpdate", {
        "fwPackageUri": firmware.url("second.bin"), "fwPackageCheckValue": hashlib.sha256(image).hexdigest(),
    })[0] == 200  # fmt: skip
    assert updater.wait(30).is_success
    assert (tmp_path / "app.bin").read_bytes() == image

    attachment.detach()
    assert client.on_method_request_received is own_method
    assert call(registry, "d1", "firmwareUpdate", {}) == (200, "mine")
    assert "secret" not in caplog.text


def test_desired_while_the_device_was_away(client, make, registry, firmware, tmp_path):  # noqa: F811
    """The SDK does not read the twin after a connect: attach does."""
    firmware.put("image.bin", IMAGE)
    wanted = {"fwVersion": "3.0.0", "fwPackageURI": firmware.url("image.bin"), "fwSize": len(IMAGE)}
    wanted["fwPackageCheckValue"] = hashlib.sha256(IMAGE).hexdigest()
    registry.update_twin("d1", Twin(properties=TwinProperties(desired={"firmware": wanted})))
    updater = make(contract="configuration", http=twinflash.Http(ca=firmware.ca))
    with twinflash.attach(client, updater):
        assert updater.wait(30).is_success
        state = reported_of(registry, "d1")["firmware"]
        assert (state["currentFwVersion"], state["fwUpdateStatus"]) == ("3.0.0", "current")
        assert (tmp_path / "app.bin").read_bytes() == IMAGE
        assert call(registry, "d1", "reboot", None)[0] == 404


def test_a_handler_set_afterwards_is_noticed(client, updater, caplog):
    attachment = twinflash.attach(client, updater)
    later = print
    client.on_method_request_received = later
    eventually(lambda: "on_method_request_received was set after" in caplog.text, "it is logged")
    attachment.detach()
    assert client.on_method_request_received is later, "it is not ours to take away"
    assert caplog.text.count("was set after") == 1


def test_wrong_clients_are_named(hub, client, updater):  # noqa: F811
    from azure.iot.device.aio import IoTHubDeviceClient as Asyncio

    with pytest.raises(TypeError, match="asyncio"):
        twinflash.attach(Asyncio.create_from_connection_string(hub.device("d1")), updater)
    with pytest.raises(TypeError, match="client"):
        twinflash.attach(object(), updater)
    with pytest.raises(TypeError, match="updater"):
        twinflash.attach(client, None)
    with pytest.raises(TypeError, match="on_method"):
        twinflash.attach(client, updater, on_method=3)


def test_a_connection_of_its_own(hub, updater, registry, firmware, tmp_path):  # noqa: F811
    events = updater.events()
    asked_for = []

    def on_method(name, payload):
        asked_for.append((name, payload))
        if name == "breaks":
            raise RuntimeError("the application's mistake")
        return {"reboot": (202, {"in": 5}), "answer": twinflash.Answer(200, [1])}.get(name)

    with twinflash.Device(hub.device("d2"), updater, ca=hub.ready["ca"], on_method=on_method) as device:
        assert isinstance(events.next(20), twinflash.Connected)
        assert call(registry, "d2", "firmwareUpdate", asked(firmware.url("image.bin")))[0] == 200
        assert device.wait(30).is_success
        assert reported_of(registry, "d2")["iothubDM"]["firmwareUpdate"]["status"] == "applyComplete"
        assert (tmp_path / "app.bin").read_bytes() == IMAGE
        assert call(registry, "d2", "reboot", {"now": 1}) == (202, {"in": 5})
        assert call(registry, "d2", "answer", None) == (200, [1])
        assert call(registry, "d2", "breaks", None)[0] == 500
        assert call(registry, "d2", "unknown", None)[0] == 404
        assert asked_for[0] == ("reboot", {"now": 1})
    assert updater.closed


@pytest.mark.parametrize(
    ("connection", "error", "named"),
    [("nonsense", twinflash.RequestError, "nonsense"), (3, TypeError, "connection_string"), ("@none", ValueError, "none")],
)
def test_a_wrong_connection_string_is_named(updater, connection, error, named):
    with pytest.raises(error):
        twinflash.Device(connection, updater)
    assert named


@pytest.mark.parametrize("program", ["device.py", "device_no_sdk.py"])
def test_the_examples(hub, firmware, tmp_path, program):  # noqa: F811
    name = "agent-3" if program == "device.py" else "chiller"
    firmware.put("image.bin", IMAGE)
    examples = ROOT / "examples/python"
    device = subprocess.Popen(
        [sys.executable, examples / program, "--connection", hub.device(name), "--ca", hub.ready["ca"],
         "--file", tmp_path / "app.bin", "--state", tmp_path / "state", "--image-ca", firmware.ca],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines = []
    ready = threading.Event()

    def read():
        for line in device.stdout:
            lines.append(line.strip())
            if line == "ready\n":
                ready.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert ready.wait(30), device.stderr.read() if device.poll() is not None else lines

        def service(url, *more):
            command = [sys.executable, examples / "service.py", "--connection", hub.service, *more, name, url]
            return subprocess.run(command, capture_output=True, text=True, timeout=40)

        done = service(firmware.url("image.bin"), "--check", hashlib.sha256(IMAGE).hexdigest())
        assert (done.returncode, done.stderr) == (0, "")
        said = done.stdout.splitlines()
        assert (said[0], said[-1]) == ('200 {"Response": "Firmware update started"}', "completed")
        assert (tmp_path / "app.bin").read_bytes() == IMAGE
        failed = service(firmware.url("none.bin"))
        assert failed.returncode == 1 and "http-status" in failed.stdout
        assert service("test.com").returncode == 1
        time.sleep(0.3)
    finally:
        device.send_signal(signal.SIGINT)
        try:
            device.wait(15)
        except subprocess.TimeoutExpired:
            device.kill()
    reader.join(10)
    assert device.returncode == 0, device.stderr.read()
    assert lines[-1] == "stopped" and "completed" in lines
    device.stdout.close()
    device.stderr.close()


def test_the_log_is_quiet_about_what_is_in_order(hub, updater, registry, firmware, caplog):  # noqa: F811
    caplog.set_level(logging.WARNING, "twinflash")
    with twinflash.Device(hub.device("d2"), updater, ca=hub.ready["ca"]) as device:
        eventually(lambda: reported_of(registry, "d2"), "reported")
        eventually(lambda: registry.get_twin("d2").connection_state == "Connected", "connected")
        assert call(registry, "d2", "firmwareUpdate", asked(firmware.url("image.bin")))[0] == 200
        assert device.wait(30).is_success
    assert [record for record in caplog.records if record.name == "twinflash"] == []
