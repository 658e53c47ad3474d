"""The device SDK's asyncio flavour, over MQTT and over WebSockets: what test_sdk.py has of the other flavour."""

import asyncio
import functools

import pytest
from azure.iot.device import Message, MethodResponse
from azure.iot.device.aio import IoTHubDeviceClient
from azure.iot.device.exceptions import ClientError, CredentialError
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties

from support import eventually, take_over, websockets


@pytest.fixture(params=["mqtt", "websockets"])
def options(hub, request):
    if request.param == "websockets":
        websockets(hub)
    return {"server_verification_cert": hub.ca_pem, "websockets": request.param == "websockets"}


def asynchronous(test):
    """pytest calls it; asyncio runs it."""

    @functools.wraps(test)
    def run(**fixtures):
        asyncio.run(asyncio.wait_for(test(**fixtures), 60))

    return run


class Device:
    """A client that is connected, and says in its answers what it was called with."""

    def __init__(self, connection, **options):
        self.client = IoTHubDeviceClient.create_from_connection_string(connection, **options)
        self.changes = []

    async def __aenter__(self):
        self.client.on_connection_state_change = lambda: self.changes.append(self.client.connected)
        await self.client.connect()
        return self

    async def __aexit__(self, *_):
        await self.client.shutdown()

    def answer_methods(self):
        async def handle(call):
            status = 400 if call.name == "refused" else 200
            response = MethodResponse.create_from_method_request(call, status, {"said": call.payload})
            await self.client.send_method_response(response)

        self.client.on_method_request_received = handle


def until(condition, what, seconds=15):
    return asyncio.to_thread(eventually, condition, what, seconds)


async def call(registry, name, payload):
    method = CloudToDeviceMethod(method_name=name, payload=payload, connect_timeout_in_seconds=10)
    result = await asyncio.to_thread(registry.invoke_device_method, "aio", method)
    return result.status, result.payload


@asynchronous
async def test_twin_and_methods(hub, registry, options):
    async with Device(hub.device("aio"), **options) as device:
        client = device.client
        await client.patch_twin_reported_properties({"firmware": {"status": "current", "n": 1}})
        await client.patch_twin_reported_properties({"firmware": {"n": None}})
        own = await client.get_twin()
        assert own["reported"]["firmware"] == {"status": "current"}
        twin = await asyncio.to_thread(registry.get_twin, "aio")
        assert twin.connection_state == "Connected"
        assert twin.properties.reported["$version"] == own["reported"]["$version"]

        patches = []

        async def desired(patch):
            patches.append(patch)

        client.on_twin_desired_properties_patch_received = desired
        changes = [{"a": 1, "b": {"c": 2}}, {"b": None}]
        for change in changes:
            await asyncio.to_thread(registry.update_twin, "aio", Twin(properties=TwinProperties(desired=change)))
        await until(lambda: len(patches) == 2, "both patches")
        version = own["desired"]["$version"]
        assert patches == [{**changes[0], "$version": version + 1}, {**changes[1], "$version": version + 2}]

        device.answer_methods()
        for payload in [{"fwPackageUri": "https://x/y"}, "text", [1, 2.5, None], "", "x" * 100_000]:
            assert await call(registry, "firmwareUpdate", payload) == (200, {"said": payload})
        assert await call(registry, "refused", 1) == (400, {"said": 1})
        await client.send_message(Message("{}", content_encoding="utf-8", content_type="application/json"))


@asynchronous
async def test_a_dropped_connection_comes_back_and_its_methods_too(hub, registry, options):
    async with Device(hub.device("aio"), **options) as device:
        device.answer_methods()
        assert await call(registry, "before", 1) == (200, {"said": 1})
        await asyncio.to_thread(take_over, hub, "aio")
        await until(lambda: device.changes == [True, False, True], "the SDK connects again", 30)
        assert await call(registry, "after", 2) == (200, {"said": 2})
        assert (await device.client.get_twin())["desired"]["$version"]


@asynchronous
async def test_a_renewed_token_keeps_methods(hub, registry, options):
    """The SDK renews its token two minutes before it ends, by connecting again."""
    async with Device(hub.device("aio"), sastoken_ttl=123, **options) as device:
        device.answer_methods()
        assert await call(registry, "before", 1) == (200, {"said": 1})
        await until(lambda: device.changes == [True, False, True], "a new connection with a new token")
        assert await call(registry, "after", 2) == (200, {"said": 2})


@asynchronous
async def test_errors(hub, options):
    async with Device(hub.device("aio"), **options) as device:
        for patch, status in [({"bad key": 1}, "400"), ({str(n): "x" * 4000 for n in range(9)}, "403")]:
            with pytest.raises(ClientError) as caught:
                await device.client.patch_twin_reported_properties(patch)
            assert status in str(caught.value.__cause__)
        await device.client.patch_twin_reported_properties({"good": 1})
    wrong = hub.device("aio").replace("DeviceId=aio", "DeviceId=d1")
    for connection in [wrong, hub.device("aio").replace("DeviceId=aio", "DeviceId=nobody")]:
        client = IoTHubDeviceClient.create_from_connection_string(connection, **options)
        with pytest.raises(CredentialError):
            await client.connect()
        await client.shutdown()
