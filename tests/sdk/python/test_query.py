"""The unmodified service SDK's queries: what comes of a query, page by page, and of a wrong one."""

import pytest
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import QuerySpecification, Twin
from msrest.exceptions import HttpOperationError

NAMES = [f"fleet-{number}" for number in range(7)]


@pytest.fixture(scope="module")
def registry(hub):
    return IoTHubRegistryManager.from_connection_string(hub.service)


@pytest.fixture(scope="module")
def fleet(registry):
    for number, name in enumerate(NAMES):
        registry.create_device_with_sas(name, "", "", "enabled")
        registry.update_twin(name, Twin(tags={"fleet": {"even": number % 2 == 0, "number": number}}))
    yield NAMES
    for name in NAMES:
        registry.delete_device(name)


def pages(registry, text, size=None):
    """The results of a query, as the SDK's users get them: until there is no continuation."""
    token = None
    while True:
        result = registry.query_iot_hub(QuerySpecification(query=text), token, size)
        yield result
        token = result.continuation_token
        if token is None:
            return


def rows(registry, text):
    (result,) = pages(registry, text)
    assert result.type == "Raw"
    # The SDK reads each row as a twin; what a twin does not have is beside it.
    return [(row.device_id, row.additional_properties) for row in result.items]


def test_twins_come_in_pages(registry, fleet):
    text = "SELECT * FROM devices WHERE IS_DEFINED(tags.fleet)"
    results = list(pages(registry, text, 3))
    assert [result.type for result in results] == ["Twin"] * 3
    assert [[twin.device_id for twin in result.items] for result in results] == [fleet[:3], fleet[3:6], fleet[6:]]
    twin = results[2].items[0]
    assert twin.tags == {"fleet": {"even": True, "number": 6}}
    assert (twin.status, twin.connection_state) == ("enabled", "Disconnected")
    assert twin.etag == registry.get_twin(twin.device_id).etag
    assert [len(result.items) for result in pages(registry, text)] == [7]


def test_one_twin(registry):
    (result,) = pages(registry, "SELECT * FROM devices WHERE deviceId = 'd1'")
    assert [twin.device_id for twin in result.items] == ["d1"]


def test_conditions_columns_and_groups(registry, fleet):
    text = "select DeviceId, tags.fleet.number as n from devices where tags.fleet.number nin [0, 2] and tags.fleet.even"
    assert rows(registry, text) == [("fleet-4", {"n": 4}), ("fleet-6", {"n": 6})]
    assert rows(registry, "SELECT COUNT() AS total FROM devices WHERE tags.fleet.number < 3") == [(None, {"total": 3})]
    text = "SELECT tags.fleet.even, COUNT() AS n FROM devices WHERE IS_DEFINED(tags.fleet) GROUP BY tags.fleet.even"
    assert rows(registry, text) == [(None, {"even": False, "n": 3}), (None, {"even": True, "n": 4})]


def test_a_wrong_query_says_where(registry):
    with pytest.raises(HttpOperationError) as caught:
        registry.query_iot_hub(QuerySpecification(query="SELECT * FROM devices WHERE tags.a == 1"))
    assert caught.value.response.status_code == 400
    assert "line 1, column 37" in caught.value.response.text
