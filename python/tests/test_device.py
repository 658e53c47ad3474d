"""The package's own connection: `twinflash hub`, nginx, and the service's SDK, unmodified."""

import gc
import hashlib
import logging
import os
import ssl
import subprocess

import pytest

pytest.importorskip("azure.iot.hub")
if "TWINFLASH_HUB" not in os.environ:
    pytest.skip("TWINFLASH_HUB starts the hub: see tests/sdk/python/support.py", allow_module_level=True)

from azure.iot.hub.models import CloudToDeviceMethod  # noqa: E402

import twinflash  # noqa: E402
from conftest import eventually  # noqa: E402

IMAGE = os.urandom(3_000_000)


@pytest.fixture
def updater(make, firmware):
    firmware.put("image.bin", IMAGE)
    return make(http=twinflash.Http(ca=firmware.ca), policy=twinflash.Policy(progress_interval=0))


def call(registry, device, name, payload):
    # A device that connects anew at this moment is waited for.
    method = CloudToDeviceMethod(method_name=name, payload=payload, connect_timeout_in_seconds=20)
    result = registry.invoke_device_method(device, method)
    return result.status, result.payload


def asked(url):
    return {"fwPackageUri": url, "fwPackageCheckValue": hashlib.sha256(IMAGE).hexdigest()}


def reported_of(registry, device):
    return registry.get_twin(device).properties.reported


def test_a_connection_of_its_own(hub, updater, registry, firmware, tmp_path):
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


def test_a_connection_by_a_certificate(hub, updater, registry, tmp_path):
    certificate, key = tmp_path / "d.pem", tmp_path / "d.key"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=own"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    thumbprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()
    registry.create_device_with_x509("own", thumbprint, thumbprint, "enabled")
    connection = f"HostName={hub.host};DeviceId=own;x509=true"
    with pytest.raises(twinflash.ConfigError, match="client_certificate and client_key"):
        twinflash.Device(connection, updater, ca=hub.ready["ca"])
    with pytest.raises(twinflash.ConfigError, match="client_key: cannot read none.key"):
        twinflash.Device(connection, updater, client_certificate=certificate, client_key="none.key")
    with pytest.raises(TypeError, match="client_key must be"):
        twinflash.Device(connection, updater, client_certificate=certificate, client_key=3)
    events = updater.events()
    with twinflash.Device(connection, updater, ca=hub.ready["ca"], client_certificate=certificate, client_key=key):
        assert isinstance(events.next(20), twinflash.Connected)
        assert call(registry, "own", "getFirmwareUpdateStatus", None)[0] == 200
    registry.delete_device("own")


def test_a_connection_that_only_the_updater_knows(hub, updater, registry):
    """Written in one line, as in the README; it ends with the updater."""
    events = updater.events()
    twinflash.Device(hub.device("d2"), updater, ca=hub.ready["ca"])
    gc.collect()
    assert isinstance(events.next(20), twinflash.Connected)
    assert call(registry, "d2", "getFirmwareUpdateStatus", None)[0] == 200
    updater.close()
    eventually(lambda: registry.get_twin("d2").connection_state == "Disconnected", "it ends with the updater")


def test_a_method_cannot_be_answered_by_a_coroutine(updater):
    async def on_method(name, payload):
        return None

    with pytest.raises(TypeError, match="on_method must be a plain function"):
        twinflash.Device("HostName=h;DeviceId=d;SharedAccessKey=a2V5", updater, on_method=on_method)


@pytest.mark.parametrize(
    ("connection", "error", "named"),
    [("nonsense", twinflash.ConfigError, "connection string"), (3, TypeError, "connection_string"), ("@none", ValueError, "none")],
)
def test_a_wrong_connection_string_is_named(updater, connection, error, named):
    with pytest.raises(error, match=named):
        twinflash.Device(connection, updater)


def test_an_updater_has_one_connection_and_none_once_it_is_closed(hub, updater):
    with twinflash.Device(hub.device("d1"), updater, ca=hub.ready["ca"]):
        with pytest.raises(twinflash.StateError, match="a Device already"):
            twinflash.Device(hub.device("d1"), updater, ca=hub.ready["ca"])


def test_a_closed_updater_is_not_connected(updater):
    updater.close()
    with pytest.raises(twinflash.StateError, match="closed"):
        twinflash.Device("HostName=h;DeviceId=d;SharedAccessKey=a2V5", updater)


def test_the_log_is_quiet_about_what_is_in_order(hub, updater, registry, firmware, caplog):
    caplog.set_level(logging.WARNING, "twinflash")
    with twinflash.Device(hub.device("d2"), updater, ca=hub.ready["ca"]) as device:
        eventually(lambda: reported_of(registry, "d2"), "reported")
        eventually(lambda: registry.get_twin("d2").connection_state == "Connected", "connected")
        assert call(registry, "d2", "firmwareUpdate", asked(firmware.url("image.bin")))[0] == 200
        assert device.wait(30).is_success
    assert [record for record in caplog.records if record.name == "twinflash"] == []
