"""attach: the unmodified device SDK, for threads and for asyncio, over MQTT and WebSockets; `twinflash hub`, nginx, the service's SDK."""

import asyncio
import hashlib
import inspect
import os

import pytest

pytest.importorskip("azure.iot.device")
if "TWINFLASH_HUB" not in os.environ:
    pytest.skip("TWINFLASH_HUB starts the hub: see tests/sdk/python/support.py", allow_module_level=True)

from azure.iot.device import IoTHubDeviceClient, MethodResponse, aio  # noqa: E402
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties  # noqa: E402

import twinflash  # noqa: E402
from conftest import eventually  # noqa: E402
from support import free_port, take_over, websockets  # noqa: E402

IMAGE = os.urandom(3_000_000)


class Kind:
    """Calls a client of either kind, from a program that has no event loop running or that has one."""

    def __init__(self, hub, kind, transport="mqtt"):
        if transport == "websockets":
            websockets(hub)
        self.hub, self.asyncio = hub, kind == "asyncio"
        self.of = aio.IoTHubDeviceClient if self.asyncio else IoTHubDeviceClient
        self.options = {"server_verification_cert": hub.ca_pem, "websockets": transport == "websockets"}
        self.loop = asyncio.new_event_loop()
        self.clients = []

    def client(self, changes=None, **options):
        """A client that is connected; `changes` gets whether it is at each change."""
        client = self.of.create_from_connection_string(self.hub.device("d1"), **self.options, **options)
        self.clients.append(client)
        if changes is not None:
            # The SDK calls it on several threads, so the state may be the next one's by then; but it is called for each.
            client.on_connection_state_change = lambda: changes.append(client.connected)
        self.do(client.connect())
        if changes is not None:
            eventually(lambda: changes, "the first change")
        return client

    def do(self, result):
        return self.loop.run_until_complete(result) if inspect.isawaitable(result) else result

    def handler(self, call):
        """A handler as the client's users write them: it may wait for what it calls."""
        if not self.asyncio:
            return call

        async def handler(*arguments):
            result = call(*arguments)
            return await result if inspect.isawaitable(result) else result

        return handler

    def end(self):
        for client in self.clients:
            self.do(client.shutdown())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


@pytest.fixture(params=["threads", "asyncio"])
def kind(hub, request):
    kind = Kind(hub, request.param)
    yield kind
    kind.end()


@pytest.fixture(params=["threads mqtt", "threads websockets", "asyncio mqtt", "asyncio websockets"])
def kind_and_transport(hub, request):
    kind = Kind(hub, *request.param.split())
    yield kind
    kind.end()


@pytest.fixture
def updater(make, firmware):
    firmware.put("image.bin", IMAGE)
    return make(http=twinflash.Http(ca=firmware.ca), policy=twinflash.Policy(progress_interval=0))


def call(registry, device, name, payload):
    # A device that connects anew at this moment is waited for.
    method = CloudToDeviceMethod(method_name=name, payload=payload, connect_timeout_in_seconds=20)
    result = registry.invoke_device_method(device, method)
    return result.status, result.payload


def asked(url, image=IMAGE):
    return {"fwPackageUri": url, "fwPackageCheckValue": hashlib.sha256(image).hexdigest()}


def update_of(registry, device):
    return registry.get_twin(device).properties.reported["iothubDM"]["firmwareUpdate"]


def test_an_update_and_what_is_the_applications(kind_and_transport, updater, registry, firmware, tmp_path, caplog):
    kind = kind_and_transport
    others, patches, changes = [], [], []
    client = kind.client(changes)

    @kind.handler
    def own_method(request):
        others.append((request.name, request.payload))
        return client.send_method_response(MethodResponse.create_from_method_request(request, 200, "mine"))

    own_patch = kind.handler(patches.append)
    client.on_method_request_received = own_method
    client.on_twin_desired_properties_patch_received = own_patch
    attachment = twinflash.attach(client, updater)
    assert isinstance(attachment, twinflash.AsyncAttachment if kind.asyncio else twinflash.Attachment)

    assert call(registry, "d1", "firmwareUpdate", asked(firmware.url("image.bin?sig=secret"))) == (200, "FirmwareUpdate started.")
    assert updater.wait(30) == twinflash.Outcome("completed")
    assert (tmp_path / "app.bin").read_bytes() == IMAGE
    done = update_of(registry, "d1")
    assert (done["status"], done["fwPackageUri"]) == ("applyComplete", firmware.url("image.bin")), "wait waits for the hub"

    # The application's own keep working.
    assert call(registry, "d1", "reboot", {"now": True}) == (200, "mine")
    assert others == [("reboot", {"now": True})]
    registry.update_twin("d1", Twin(properties=TwinProperties(desired={"interval": os.getpid()})))
    eventually(lambda: patches and patches[-1].get("interval") == os.getpid(), "the application's patch")

    # The SDK's connection goes and comes: the next update is heard of and told.
    kind.do(client.disconnect())
    kind.do(client.connect())
    eventually(lambda: len(changes) >= 3 and changes[-1], "the application's handler of changes")
    image = os.urandom(1_000_000)
    firmware.put("second.bin", image)
    assert call(registry, "d1", "firmwareUpdate", asked(firmware.url("second.bin"), image))[0] == 200
    assert updater.wait(30).is_success
    assert (tmp_path / "app.bin").read_bytes() == image

    kind.do(attachment.detach())
    assert client.on_method_request_received is own_method
    assert client.on_twin_desired_properties_patch_received is own_patch
    assert call(registry, "d1", "firmwareUpdate", {}) == (200, "mine")
    kind.do(attachment.detach())
    assert "secret" not in caplog.text


def test_each_failure_is_told(kind, make, registry, firmware, tmp_path):
    """The hub has the reason, the old image is there, and the next update can start."""
    (tmp_path / "app.bin").write_bytes(b"old")
    firmware.put("image.bin", IMAGE)
    policy = twinflash.Policy(retry_time=0, max_size=len(IMAGE), allow_http=True)
    updater = make(http=twinflash.Http(ca=firmware.ca), policy=policy)
    attachment = twinflash.attach(kind.client(), updater)
    for wanted, code in [
        (asked(firmware.url("none.bin")), "http-status"),
        (asked(firmware.url("image.bin"), b"another"), "hash-mismatch"),
        ({"fwPackageUri": firmware.url("image.bin"), "fwPackageCheckValue": "0000"}, "crc-mismatch"),
        ({**asked(firmware.url("image.bin")), "fwSize": 5}, "size-mismatch"),
        (asked(f"http://127.0.0.1:{free_port()}/image.bin"), "network"),
        (asked(firmware.url("image.bin").replace("localhost", "127.0.0.1")), "tls"),
    ]:
        assert call(registry, "d1", "firmwareUpdate", wanted)[0] == 200, code
        outcome = updater.wait(30)
        assert outcome.failure.code == code, outcome
        told = update_of(registry, "d1")
        assert (told["status"], told["error"]["code"]) == ("downloadFailed", code)
        assert (tmp_path / "app.bin").read_bytes() == b"old"
    for wanted in ({"fwPackageUri": "test.com"}, {}, None, {**asked(firmware.url("image.bin")), "fwSize": len(IMAGE) + 1}):
        assert call(registry, "d1", "firmwareUpdate", wanted)[0] == 400
    # What cannot be installed, once it is there.
    os.rename(tmp_path / "app.bin", tmp_path / "away")
    (tmp_path / "app.bin").mkdir()
    assert call(registry, "d1", "firmwareUpdate", asked(firmware.url("image.bin")))[0] == 200
    assert updater.wait(30).failure.code == "storage"
    (tmp_path / "app.bin").rmdir()
    assert call(registry, "d1", "firmwareUpdate", asked(firmware.url("image.bin")))[0] == 200
    assert updater.wait(30).is_success
    assert update_of(registry, "d1")["status"] == "applyComplete"
    kind.do(attachment.detach())


@pytest.mark.parametrize("how", ["the hub drops the line", "the token is renewed"])
def test_a_new_connection_while_an_update_runs(kind, updater, registry, firmware, tmp_path, how, hub):
    """The SDK connects again by itself: the update goes on meanwhile, and every report arrives."""
    image = os.urandom(3_000_000)
    firmware.put("slow-1.bin", image)
    # It renews its token two minutes before that ends.
    options = {"sastoken_ttl": 123} if how == "the token is renewed" else {"connection_retry_interval": 1}
    changes = []
    client = kind.client(changes, **options)
    attachment = twinflash.attach(client, updater)
    assert call(registry, "d1", "firmwareUpdate", asked(firmware.url("slow-1.bin"), image))[0] == 200
    eventually(lambda: updater.status().bytes, "bytes")
    if how == "the hub drops the line":
        take_over(hub, "d1")
    eventually(lambda: len(changes) >= 3 and changes[-1], f"another connection, not only {changes}", 30)
    assert updater.wait(30).is_success
    assert update_of(registry, "d1")["status"] == "applyComplete"
    assert (tmp_path / "app.bin").read_bytes() == image
    assert call(registry, "d1", "getFirmwareUpdateStatus", None)[0] == 200, "methods come over the new one, too"
    kind.do(attachment.detach())


def test_desired_while_the_device_was_away(kind, make, registry, firmware, tmp_path):
    """The SDK does not read the twin after a connect: attach does."""
    firmware.put("image.bin", IMAGE)
    version = f"3.0.{kind.asyncio:d}"
    wanted = {"fwVersion": version, "fwPackageURI": firmware.url("image.bin"), "fwSize": len(IMAGE)}
    wanted["fwPackageCheckValue"] = hashlib.sha256(IMAGE).hexdigest()
    registry.update_twin("d1", Twin(properties=TwinProperties(desired={"firmware": wanted})))
    updater = make(contract="configuration", http=twinflash.Http(ca=firmware.ca))
    attachment = twinflash.attach(kind.client(), updater)
    assert updater.wait(30).is_success
    state = registry.get_twin("d1").properties.reported["firmware"]
    assert (state["currentFwVersion"], state["fwUpdateStatus"]) == (version, "current")
    assert (tmp_path / "app.bin").read_bytes() == IMAGE
    assert call(registry, "d1", "reboot", None)[0] == 404
    kind.do(attachment.detach())


def test_a_handler_set_afterwards_is_noticed(kind, updater, caplog):
    client = kind.client()
    attachment = twinflash.attach(client, updater)
    later = print
    client.on_method_request_received = later
    eventually(lambda: "on_method_request_received was set after" in caplog.text, "it is logged")
    kind.do(attachment.detach())
    assert client.on_method_request_received is later, "it is not ours to take away"
    assert caplog.text.count("was set after") == 1


def test_the_attachment_as_a_context(hub, updater, registry, firmware):
    """An application in asyncio, as it is written; a plain function as its handler."""

    async def main():
        client = aio.IoTHubDeviceClient.create_from_connection_string(hub.device("d1"), server_verification_cert=hub.ca_pem)
        await client.connect()
        events, loop = updater.events(), asyncio.get_running_loop()

        def own_method(request):
            answer = MethodResponse.create_from_method_request(request, 200, request.name)
            asyncio.run_coroutine_threadsafe(client.send_method_response(answer), loop).result(10)

        async with twinflash.attach(client, updater, own_method):
            loop.run_in_executor(None, call, registry, "d1", "firmwareUpdate", asked(firmware.url("image.bin")))
            async for event in events:
                if isinstance(event, twinflash.Ended):
                    break
            assert await asyncio.to_thread(call, registry, "d1", "own", None) == (200, "own")
        await client.shutdown()
        return event.outcome

    assert asyncio.run(main()).is_success


def test_wrong_clients_are_named(kind, updater):
    client = kind.client()
    with pytest.raises(TypeError, match="client"):
        twinflash.attach(object(), updater)
    with pytest.raises(TypeError, match="updater"):
        twinflash.attach(client, None)
    with pytest.raises(TypeError, match="on_method"):
        twinflash.attach(client, updater, on_method=3)
    assert client.on_method_request_received is None
    updater.close()
    with pytest.raises(twinflash.StateError, match="closed"):
        twinflash.attach(client, updater)


def test_an_updater_has_one_client_at_a_time(kind, hub, updater):
    client = kind.client()
    attachment = twinflash.attach(client, updater)
    with pytest.raises(twinflash.StateError, match="an attached client already"):
        twinflash.attach(client, updater)
    with pytest.raises(twinflash.StateError, match="an attached client already"):
        twinflash.Device(hub.device("d2"), updater, ca=hub.ready["ca"])
    kind.do(attachment.detach())
    kind.do(twinflash.attach(client, updater).detach())
    with twinflash.Device(hub.device("d2"), updater, ca=hub.ready["ca"]):
        with pytest.raises(twinflash.StateError, match="a Device already"):
            twinflash.attach(client, updater)
    assert client.on_method_request_received is None


def test_a_client_for_threads_takes_no_coroutine(hub, updater):
    async def on_method(request):
        pass

    client = IoTHubDeviceClient.create_from_connection_string(hub.device("d1"), server_verification_cert=hub.ca_pem)
    with pytest.raises(TypeError, match="on_method must be a plain function"):
        twinflash.attach(client, updater, on_method)
    client.shutdown()


def test_a_client_that_cannot_connect_has_its_own_handlers_again(kind, updater):
    nowhere = f"HostName=127.0.0.1:{free_port()};DeviceId=d1;SharedAccessKey=a2V5"
    client = kind.of.create_from_connection_string(nowhere, connection_retry=False)
    kind.clients.append(client)
    with pytest.raises(Exception) as caught:
        twinflash.attach(client, updater)
    assert type(caught.value).__name__ == "ConnectionFailedError"
    assert client.on_connection_state_change is client.on_method_request_received is None
    kind.do(twinflash.attach(kind.client(), updater).detach())
