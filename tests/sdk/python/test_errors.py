"""The errors that a back end's author meets and test_sdk.py does not have, as the unmodified service SDK shows them."""

import pytest
from azure.iot.hub import IoTHubConfigurationManager, IoTHubJobManager, IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, JobRequest, QuerySpecification, Twin, TwinProperties

from support import Running, error, eventually


def named(response):
    return response.status_code, response.headers["iothub-errorcode"]


def policy(hub, name, manager=IoTHubRegistryManager):
    return manager.from_connection_string(hub.ready["policies"][name])


def test_what_is_not_there(hub, registry):
    jobs = IoTHubJobManager.from_connection_string(hub.service)
    configurations = IoTHubConfigurationManager.from_connection_string(hub.service)
    missing = (404, "DeviceNotFound")
    for call in [registry.get_device, registry.delete_device, registry.get_twin]:
        assert named(error(lambda: call("nobody"))) == missing
    assert named(error(lambda: registry.update_twin("nobody", Twin(tags={})))) == missing
    assert named(error(lambda: jobs.get_scheduled_job("none"))) == (404, "JobNotFound")
    assert named(error(lambda: jobs.cancel_scheduled_job("none"))) == (404, "JobNotFound")
    assert named(error(lambda: configurations.get_configuration("none"))) == (404, "ConfigurationNotFound")


def test_what_is_too_large_or_no_good(hub, registry):
    large = CloudToDeviceMethod(method_name="m", payload="x" * 128 * 1024)
    assert "413001" in error(lambda: registry.invoke_device_method("d1", large)).text
    for desired in [{"a.b": 1}, {"n": 2**53}, {"a": "x" * 4097}, {"a": [None]}]:
        patch = Twin(properties=TwinProperties(desired=desired))
        assert named(error(lambda: registry.update_twin("d1", patch))) == (400, "ArgumentInvalid"), desired
    patch = Twin(properties=TwinProperties(desired={str(n): "x" * 4000 for n in range(9)}))
    assert named(error(lambda: registry.update_twin("d1", patch))) == (403, "TwinSizeExceeded")
    for name in ["a b", "x" * 129]:
        made = error(lambda: registry.create_device_with_sas(name, "", "", "enabled"))
        assert named(made) == (400, "ArgumentInvalid")
    job = JobRequest(job_id="bad", type="scheduleUpdateTwin", update_twin=Twin(tags={"a": 1}), query_condition="tags.")
    jobs = IoTHubJobManager.from_connection_string(hub.service)
    refused = error(lambda: jobs.create_scheduled_job("bad", job))
    assert named(refused) == (400, "ArgumentInvalid") and "queryCondition" in refused.text
    query = QuerySpecification(query="SELECT * FROM devices")
    assert named(error(lambda: registry.query_iot_hub(query, "no token of this hub"))) == (400, "ArgumentInvalid")


def test_what_a_policy_does_not_allow(hub):
    refused = (401, "IotHubUnauthorized")
    assert named(error(lambda: policy(hub, "registryRead").delete_device("d1"))) == refused
    assert named(error(lambda: policy(hub, "registryReadWrite").get_twin("d1"))) == refused
    method = CloudToDeviceMethod(method_name="m", payload=1)
    assert named(error(lambda: policy(hub, "device").invoke_device_method("d1", method))) == refused
    assert named(error(lambda: policy(hub, "service").get_device("d1"))) == refused
    jobs = policy(hub, "registryReadWrite", IoTHubJobManager)
    assert named(error(lambda: jobs.get_scheduled_job("j"))) == refused


def test_too_much_at_once(monkeypatch):
    throttled = Running("hub", "--throttle", "--device", "d", "--mqtt-port", "0", "--https-port", "0")
    try:
        (ready,) = eventually(lambda: throttled.seen("ready"), "the hub is ready")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", ready["ca"])
        registry = IoTHubRegistryManager.from_connection_string(ready["serviceConnectionString"])
        query = QuerySpecification(query="SELECT * FROM devices")
        for _ in range(20):
            registry.query_iot_hub(query)
        refused = error(lambda: registry.query_iot_hub(query))
        assert named(refused) == (429, "ThrottlingException") and "20 queries in 60 s" in refused.text
        assert registry.get_twin("d").device_id == "d"
    finally:
        assert throttled.stop() == 0
