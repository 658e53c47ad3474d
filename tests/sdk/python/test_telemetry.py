"""What devices send, as `twinflash watch --telemetry` shows it."""

import json

import pytest
from azure.iot.device import IoTHubDeviceClient, Message

from support import Running, eventually, mqtt


@pytest.fixture
def watch(hub):
    command = Running("watch", "--telemetry", "teller", "--service", hub.service, "--ca", hub.ready["ca"])
    eventually(lambda: command.seen("reading"), "the command reads")
    yield lambda count: eventually(
        lambda: len(command.seen("telemetry")) >= count and command.seen("telemetry"), f"{count} messages"
    )
    assert command.stop() == 143
    assert command.seen("lost") == []


def test_messages_of_the_sdk(hub, watch):
    client = IoTHubDeviceClient.create_from_connection_string(hub.device("teller"), server_verification_cert=hub.ca_pem)
    client.connect()
    measured = Message(json.dumps({"temperature": 21.5}), content_encoding="utf-8", content_type="application/json")
    measured.message_id = "m/1"
    measured.custom_properties["alert"] = "too hot & rising"
    for message in [measured, "hello", Message(b"\xff\x00")]:
        client.send_message(message)
    client.shutdown()
    first, second, third = watch(3)
    assert first["device"] == "teller"
    assert first["json"] == {"temperature": 21.5}
    assert first["properties"] == {"alert": "too hot & rising"}
    system = {"content-encoding": "utf-8", "content-type": "application/json", "message-id": "m/1"}
    assert first["systemProperties"] == system
    assert first["time"].endswith("Z")
    assert second["text"] == "hello"
    assert third["hex"] == "ff00"


def test_a_last_will(hub, watch):
    topic = "devices/teller/messages/events/"
    leaving = mqtt(hub, "teller", lambda client: client.will_set(topic, "gone", 1))
    leaving.disconnect()
    # Returns once the DISCONNECT is written: the next client would else cut this one off before it.
    leaving.loop_stop()
    client = mqtt(hub, "teller", lambda client: client.will_set(topic + "why=crash", "gone", 1))
    client.loop_stop()
    client.socket().close()
    (will,) = watch(1)
    assert will["text"] == "gone"
    assert will["properties"] == {"why": "crash", "iothub-MessageType": "Will"}
    # One that is no message is not lost in silence.
    client = mqtt(hub, "teller", lambda client: client.will_set("elsewhere", "gone", 1))
    client.loop_stop()
    client.socket().close()
    (complaint,) = eventually(lambda: [e for e in hub.events if e["event"] == "warning"], "the hub says so")
    assert "the last will of teller is not kept" in complaint["message"]
