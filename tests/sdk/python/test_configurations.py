"""The unmodified service SDK's automatic device configurations: the Node tutorial's own one, with its metrics."""

import os

import pytest
from azure.iot.device import IoTHubDeviceClient
from azure.iot.hub import IoTHubConfigurationManager
from azure.iot.hub.models import (
    Configuration,
    ConfigurationContent,
    ConfigurationMetrics,
    ConfigurationQueriesTestInput,
    Twin,
)
from msrest.exceptions import HttpOperationError

from support import Agent, eventually, info_of

ID = "firmware285"


def metric(*statuses):
    is_one = " OR ".join(f"properties.reported.firmware.fwUpdateStatus='{status}'" for status in statuses)
    return f"SELECT deviceId FROM devices WHERE configurations.[[{ID}]].status='Applied' AND ( {is_one} )"


METRICS = {
    "Current": metric("current"),
    "Applying": metric("downloading", "verifying", "applying"),
    "Rebooting": metric("rebooting"),
    "Error": metric("error"),
    "Rolled back": metric("rolledback"),
}


@pytest.fixture
def configurations(hub):
    manager = IoTHubConfigurationManager.from_connection_string(hub.service)
    yield manager
    for configuration in manager.get_configurations():
        manager.delete_configuration(configuration.id)


def tutorial(firmware):
    return Configuration(
        id=ID,
        schema_version="1.0",
        labels={"customer": "contoso"},
        content=ConfigurationContent(device_content={"properties.desired.firmware": firmware}),
        target_condition="tags.devicetype = 'chiller'",
        priority=20,
        metrics=ConfigurationMetrics(queries=METRICS),
    )


def error(call):
    with pytest.raises(HttpOperationError) as caught:
        call()
    return caught.value.response


def test_the_tutorial_s_metrics_follow_a_device(hub, registry, configurations):
    wanted = {"fwVersion": "2", "fwPackageURI": "https://secure/fw", "fwPackageCheckValue": "00"}
    made = configurations.create_configuration(tutorial(wanted))
    assert made.system_metrics.results == {"targetedCount": 0, "appliedCount": 0}
    client = IoTHubDeviceClient.create_from_connection_string(hub.device("chiller"), server_verification_cert=hub.ca_pem)
    patches = []
    client.on_twin_desired_properties_patch_received = patches.append
    client.connect()
    try:
        # One more call answers only when the device has subscribed.
        client.patch_twin_reported_properties({"firmware": {"fwUpdateStatus": "current"}})
        registry.update_twin("chiller", Twin(tags={"devicetype": "chiller"}))
        eventually(lambda: patches, "the setting reaches the device")
        assert patches[0]["firmware"] == wanted
        for status, name in [
            ("current", "Current"), ("downloading", "Applying"), ("verifying", "Applying"), ("applying", "Applying"),
            ("rebooting", "Rebooting"), ("error", "Error"), ("rolledback", "Rolled back"), ("current", "Current"),
        ]:
            client.patch_twin_reported_properties({"firmware": {"fwUpdateStatus": status}})
            shown = configurations.get_configuration(ID)
            assert shown.metrics.results == {**dict.fromkeys(METRICS, 0), name: 1}, status
            assert shown.system_metrics.results == {"targetedCount": 1, "appliedCount": 1}
        registry.update_twin("chiller", Twin(tags={"devicetype": None}))
        eventually(lambda: len(patches) == 2, "the setting is taken back")
        assert patches[1] == {"firmware": None, "$version": patches[0]["$version"] + 1}
        assert configurations.get_configuration(ID).metrics.results == dict.fromkeys(METRICS, 0)
    finally:
        client.shutdown()


def test_a_configuration_updates_an_agent(hub, registry, configurations, firmware, tmp_path):
    image = os.urandom(1_000_000)
    described = info_of(firmware.put("rollout.bin", image))
    agent = Agent(hub, firmware, tmp_path, "agent-3", "configuration")
    try:
        registry.update_twin("agent-3", Twin(tags={"devicetype": "chiller"}))
        wanted = {
            "fwVersion": "1.0.1",
            "fwPackageURI": firmware.url("rollout.bin"),
            "fwPackageCheckValue": described["sha256"],
        }
        configurations.create_configuration(tutorial(wanted))

        def results():
            return configurations.get_configuration(ID).metrics.results

        def is_new():
            reported = registry.get_twin("agent-3").properties.reported["firmware"]
            return reported["currentFwVersion"] == "1.0.1" and reported["fwUpdateStatus"] == "current"

        eventually(is_new, "the new version runs", 30)
        assert results() == {**dict.fromkeys(METRICS, 0), "Current": 1}
        assert agent.target.read_bytes() == image
        # The next configuration outranks it, and its image is not what it says.
        wrong = {**wanted, "fwVersion": "1.0.2", "fwPackageCheckValue": "0" * 64}
        worse = tutorial(wrong)
        worse.id, worse.priority, worse.metrics = "worse", 21, None
        configurations.create_configuration(worse)
        reported = {}

        def is_refused():
            reported.update(registry.get_twin("agent-3").properties.reported["firmware"])
            return reported["fwUpdateStatus"] == "error"

        eventually(is_refused, reported, 20)
        assert reported["currentFwVersion"] == "1.0.1"
        # The first one is not applied any more: its metrics do not count the device.
        assert results() == dict.fromkeys(METRICS, 0)
        assert configurations.get_configuration(ID).system_metrics.results == {"targetedCount": 1, "appliedCount": 0}
    finally:
        agent.stop()


def test_changes_and_errors(configurations):
    made = configurations.create_configuration(tutorial({"v": 1}))
    assert error(lambda: configurations.create_configuration(tutorial({"v": 1}))).status_code == 409
    made.priority = 30
    updated = configurations.update_configuration(made, made.etag)
    assert (updated.priority, updated.created_time_utc) == (30, made.created_time_utc)
    assert error(lambda: configurations.update_configuration(made, made.etag)).status_code == 412
    other = tutorial({"v": 2})
    refused = error(lambda: configurations.update_configuration(other, "*"))
    assert refused.status_code == 400 and "CannotModifyImmutableConfigurationContent" in refused.text
    other.id, other.target_condition = "other", "tags."
    assert "InvalidConfigurationTargetCondition" in error(lambda: configurations.create_configuration(other)).text
    assert [configuration.id for configuration in configurations.get_configurations(max_count=5)] == [ID]
    tested = configurations.test_configuration_queries(
        ConfigurationQueriesTestInput(target_condition="tags.", custom_metric_queries={**METRICS, "Wrong": "SELECT"})
    )
    assert tested.target_condition_error
    assert list(tested.custom_metric_query_errors) == ["Wrong"]
    configurations.delete_configuration(ID, updated.etag)
    assert error(lambda: configurations.get_configuration(ID)).status_code == 404
