"""What the unmodified Azure SDKs do with the local hub."""

import base64
import hashlib
import ssl
import subprocess
import threading

import pytest
from azure.iot.device import IoTHubDeviceClient, MethodResponse, X509
from azure.iot.device.exceptions import ClientError, CredentialError
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, ExportImportDevice, Twin, TwinProperties

from support import error, eventually, take_over, websockets


@pytest.fixture
def registry(hub):
    return IoTHubRegistryManager.from_connection_string(hub.service)


@pytest.fixture
def device(hub):
    client = IoTHubDeviceClient.create_from_connection_string(
        hub.device("d1"), server_verification_cert=hub.ca_pem
    )
    client.connect()
    yield client
    client.shutdown()


def answer_methods(client, calls):
    def handle(request):
        calls.append((request.name, request.payload))
        status = 400 if request.name == "refused" else 200
        client.send_method_response(
            MethodResponse.create_from_method_request(request, status, {"said": request.payload})
        )

    client.on_method_request_received = handle


def test_methods_go_both_ways(device, registry):
    calls = []
    answer_methods(device, calls)
    for payload in [{"fwPackageUri": "https://x/y"}, "text", [1, 2.5, None], ""]:
        result = registry.invoke_device_method(
            "d1", CloudToDeviceMethod(method_name="firmwareUpdate", payload=payload)
        )
        assert (result.status, result.payload) == (200, {"said": payload})
    result = registry.invoke_device_method("d1", CloudToDeviceMethod(method_name="refused", payload=1))
    assert result.status == 400
    assert [name for name, _ in calls] == ["firmwareUpdate"] * 4 + ["refused"]


def test_twin_reported_and_desired(device, registry):
    device.patch_twin_reported_properties({"firmware": {"status": "current", "n": 1}})
    device.patch_twin_reported_properties({"firmware": {"n": None}})
    twin = registry.get_twin("d1")
    assert twin.properties.reported["firmware"] == {"status": "current"}
    assert twin.connection_state == "Connected"
    version = twin.properties.reported["$version"]
    assert twin.properties.reported["$metadata"]["firmware"]["status"]["$lastUpdated"]
    own = device.get_twin()
    assert own["reported"] == {"firmware": {"status": "current"}, "$version": version}

    patches = []
    device.on_twin_desired_properties_patch_received = patches.append
    updated = registry.update_twin(
        "d1", Twin(tags={"place": "here"}, properties=TwinProperties(desired={"a": 1, "b": {"c": 2}})), twin.etag
    )
    assert updated.tags == {"place": "here"}
    eventually(lambda: len(patches) == 1, "first desired patch")
    registry.update_twin("d1", Twin(properties=TwinProperties(desired={"b": None})))
    eventually(lambda: len(patches) == 2, "second desired patch")
    first = patches[0]["$version"]
    assert patches == [{"a": 1, "b": {"c": 2}, "$version": first}, {"b": None, "$version": first + 1}]
    assert device.get_twin()["desired"] == {"a": 1, "$version": first + 1}

    replaced = registry.replace_twin("d1", Twin(tags={}, properties=TwinProperties(desired={"z": 1})))
    assert replaced.tags == {} or replaced.tags is None
    eventually(lambda: len(patches) == 3, "desired patch of a replacement")
    assert patches[2] == {"a": None, "z": 1, "$version": first + 2}


def test_a_stale_etag_is_412(registry):
    etag = registry.get_twin("d1").etag
    registry.update_twin("d1", Twin(tags={"n": "1"}), etag)
    assert error(lambda: registry.update_twin("d1", Twin(tags={"n": "2"}), etag)).status_code == 412


def test_a_bad_report_is_refused_and_the_device_lives_on(device, registry):
    large = {str(n): "x" * 4000 for n in range(9)}
    for patch, status in [({"bad key": 1}, "400"), (large, "403")]:
        with pytest.raises(ClientError) as caught:
            device.patch_twin_reported_properties(patch)
        assert status in str(caught.value.__cause__)
    device.patch_twin_reported_properties({"good": 1})
    assert registry.get_twin("d1").properties.reported["good"] == 1


def test_a_dropped_connection_comes_back_and_its_methods_too(hub, device, registry):
    """The SDK does not subscribe again: the hub must have kept its subscriptions."""
    calls = []
    answer_methods(device, calls)
    registry.invoke_device_method("d1", CloudToDeviceMethod(method_name="before", payload=1))
    lost = threading.Event()
    device.on_connection_state_change = lambda: device.connected or lost.set()
    take_over(hub, "d1")
    assert lost.wait(15), "the hub dropped the connection"
    eventually(lambda: device.connected, "the SDK connects again", 30)
    result = registry.invoke_device_method(
        "d1", CloudToDeviceMethod(method_name="after", payload=2, connect_timeout_in_seconds=10)
    )
    assert result.payload == {"said": 2}


def test_a_renewed_token_keeps_methods(hub, registry):
    """The SDK renews its token two minutes before it ends, by connecting again."""
    client = IoTHubDeviceClient.create_from_connection_string(
        hub.device("d1"), server_verification_cert=hub.ca_pem, sastoken_ttl=123
    )
    calls, changes = [], []
    client.on_connection_state_change = lambda: changes.append(client.connected)
    client.connect()
    try:
        answer_methods(client, calls)
        registry.invoke_device_method("d1", CloudToDeviceMethod(method_name="before", payload=1))
        eventually(lambda: changes == [True, False, True], "a new connection with a new token")
        result = registry.invoke_device_method(
            "d1", CloudToDeviceMethod(method_name="after", payload=2, connect_timeout_in_seconds=10)
        )
        assert result.payload == {"said": 2}
    finally:
        client.shutdown()


def test_websockets(hub, registry):
    websockets(hub)
    client = IoTHubDeviceClient.create_from_connection_string(
        hub.device("d1"), server_verification_cert=hub.ca_pem, websockets=True
    )
    client.connect()
    try:
        calls = []
        answer_methods(client, calls)
        text = "x" * 100_000
        result = registry.invoke_device_method("d1", CloudToDeviceMethod(method_name="m", payload=text))
        assert result.payload == {"said": text}
        client.patch_twin_reported_properties({"over": "websockets"})
        assert client.get_twin()["reported"]["over"] == "websockets"
    finally:
        client.shutdown()


def test_methods_that_cannot_be_answered(hub, registry):
    def invoke(device, **options):
        return lambda: registry.invoke_device_method(device, CloudToDeviceMethod(method_name="m", **options))

    assert error(invoke("nobody")).status_code == 404
    offline = error(invoke("d2"))
    assert offline.status_code == 404 and "404103" in offline.text
    client = IoTHubDeviceClient.create_from_connection_string(
        hub.device("d2"), server_verification_cert=hub.ca_pem
    )
    client.connect()
    try:
        # Connected, but it has not subscribed to methods.
        assert "404103" in error(invoke("d2")).text
        client.on_method_request_received = lambda request: None
        late = error(invoke("d2", response_timeout_in_seconds=5))
        assert late.status_code == 504 and "504101" in late.text
    finally:
        client.shutdown()


def test_the_registry(hub, registry):
    key = base64.b64encode(b"k" * 32).decode()
    made = registry.create_device_with_sas("made", key, key, "enabled")
    assert (made.device_id, made.status) == ("made", "enabled")
    assert made.authentication.symmetric_key.primary_key == key
    assert error(lambda: registry.create_device_with_sas("made", key, key, "enabled")).status_code == 409
    assert "made" in [device.device_id for device in registry.get_devices()]
    host = hub.host
    client = IoTHubDeviceClient.create_from_connection_string(
        f"HostName={host};DeviceId=made;SharedAccessKey={key}", server_verification_cert=hub.ca_pem
    )
    client.connect()
    client.shutdown()
    other = base64.b64encode(b"o" * 32).decode()
    updated = registry.update_device_with_sas("made", registry.get_device("made").etag, other, other, "disabled")
    assert updated.status == "disabled"
    registry.delete_device("made")
    assert error(lambda: registry.get_device("made")).status_code == 404


def test_many_devices_at_once(registry):
    before = registry.get_device_registry_statistics()
    names = ["many1", "many2"]
    made = [ExportImportDevice(id=name, import_mode="create", tags={"place": "here"}) for name in names]
    assert registry.bulk_create_or_update_devices(made).is_successful
    assert registry.get_device_registry_statistics().total_device_count == before.total_device_count + 2
    assert registry.get_twin("many1").tags == {"place": "here"}
    again = registry.bulk_create_or_update_devices(made)
    assert not again.is_successful
    assert [(failed.device_id, failed.error_code) for failed in again.errors] == [
        (name, "DeviceAlreadyExists") for name in names
    ]
    assert registry.get_service_statistics().connected_device_count >= 0
    gone = [ExportImportDevice(id=name, import_mode="delete") for name in names]
    assert registry.bulk_create_or_update_devices(gone).is_successful
    assert error(lambda: registry.get_device("many1")).status_code == 404


def test_a_wrong_key_is_refused(hub):
    host = hub.host
    key = base64.b64encode(b"wrong" * 8).decode()
    client = IoTHubDeviceClient.create_from_connection_string(
        f"HostName={host};DeviceId=d1;SharedAccessKey={key}", server_verification_cert=hub.ca_pem
    )
    with pytest.raises(CredentialError):
        client.connect()
    client.shutdown()
    service = hub.service.replace(hub.service.split("SharedAccessKey=")[1], key)
    registry = IoTHubRegistryManager.from_connection_string(service)
    assert error(lambda: registry.get_devices()).status_code == 401


def test_a_certificate_lets_a_device_in_by_its_thumbprint(hub, registry, tmp_path):
    certificates = []
    for name in ["first", "second", "other"]:
        certificate, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=certified", "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )
        der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
        certificates.append((X509(str(certificate), str(key)), hashlib.sha1(der).hexdigest().upper()))
    (first, one), (second, two), (other, _) = certificates
    made = registry.create_device_with_x509("certified", one, two, "enabled")
    assert made.authentication.x509_thumbprint.primary_thumbprint == one

    def client(x509, **options):
        return IoTHubDeviceClient.create_from_x509_certificate(
            x509, hub.host, "certified", server_verification_cert=hub.ca_pem, **options
        )

    over = [{}] if hub.ready["httpsPort"] != 443 else [{}, {"websockets": True}]
    for n, (x509, options) in enumerate((x509, options) for x509 in [first, second] for options in over):
        device, calls = client(x509, **options), []
        device.connect()
        answer_methods(device, calls)
        result = registry.invoke_device_method("certified", CloudToDeviceMethod(method_name="m", payload=n))
        assert result.payload == {"said": n}
        device.patch_twin_reported_properties({"calls": n})
        assert device.get_twin()["reported"]["calls"] == n
        device.shutdown()
    for options in over:
        stranger = client(other, **options)
        with pytest.raises(CredentialError):
            stranger.connect()
        stranger.shutdown()
    registry.delete_device("certified")
