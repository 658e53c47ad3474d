"""The tutorials whose back ends write desired properties."""

import pytest
from azure.iot.hub import IoTHubConfigurationManager
from azure.iot.hub.models import Configuration, ConfigurationContent, ConfigurationMetrics

from test_methods import unfit_when
from support import eventually, info_of

CONFIGURATION = "service-configuration.js"


@pytest.fixture
def configurations(hub):
    return IoTHubConfigurationManager.from_connection_string(hub.service)


def test_the_later_node_programs(place, tmp_path):
    here = place("configuration", policy=unfit_when(tmp_path))
    images, checks = [], []
    for n in range(3):
        images.append(here.image(f"configuration-{n}.bin"))
        checks.append(info_of(here.firmware.directory / "www" / f"configuration-{n}.bin")["sha256"])
    first = eventually(lambda: here.twin().get("firmware"), "the first report")
    assert first == {
        "currentFwVersion": "1.0.0", "pendingFwVersion": "", "fwUpdateStatus": "current", "fwUpdateSubstatus": "",
        "lastFwUpdateStartTime": "", "lastFwUpdateEndTime": "",
    }

    def run(version, url, check):
        back_end = here.run(CONFIGURATION, version, url, check, "--device", here.device)
        status = back_end.ended()
        end = back_end.objects()[-1]
        assert set(end) == set(first)
        assert (status == 0) == (end["fwUpdateStatus"] == "current")
        return end

    for n, version in ((0, "1.0.1"), (1, "1.0.2")):
        end = run(version, here.firmware.url(f"configuration-{n}.bin"), checks[n])
        assert (end["currentFwVersion"], end["pendingFwVersion"], end["fwUpdateSubstatus"]) == (version, "", "")
        assert end["lastFwUpdateStartTime"] <= end["lastFwUpdateEndTime"]
        course = here.course("firmware", "fwUpdateStatus")
        assert [status for status in course if status != "rebooting"] == ["current", "downloading", "verifying", "applying", "current"]
        assert here.installed() == images[n]

    for version, uri, check, reason in [
        ("1.0.3", here.firmware.url("none.bin"), checks[2], "404"),
        ("1.0.4", here.firmware.url("configuration-2.bin"), checks[0], f"{checks[0]} was announced"),
        ("1.0.5", "http://localhost/configuration-2.bin", checks[2], "Insecure package URI"),
        ("1.0.6", here.firmware.url("configuration-2.bin"), "123456abcde", "123456abcde"),
    ]:
        end = run(version, uri, check)
        assert end["fwUpdateStatus"] == "error"
        assert reason in end["fwUpdateSubstatus"]
        assert (end["currentFwVersion"], end["pendingFwVersion"]) == ("1.0.2", version)
        assert end["lastFwUpdateEndTime"] == ""
    (tmp_path / "unfit").touch()
    # First the error, and its end when the old one is back: the back end may have stopped at the first.
    run("1.0.7", here.firmware.url("configuration-2.bin"), checks[2])
    end = eventually(lambda: (now := here.twin()["firmware"])["fwUpdateStatus"] == "rolledback" and now, "rolled back")
    assert here.course("firmware", "fwUpdateStatus")[-2:] == ["error", "rolledback"]
    assert end["fwUpdateSubstatus"].startswith("Rolled back to: 1.0.2; ")
    assert here.installed() == images[1]
    (tmp_path / "unfit").unlink()
    # A lower version is an update too.
    end = run("0.9", here.firmware.url("configuration-2.bin"), checks[2])
    assert end["currentFwVersion"] == "0.9"
    assert here.installed() == images[2]
    # The running version is looked at before the URI.
    here.patch(fwVersion="0.9", fwPackageURI="http://localhost/any.bin")
    eventually(lambda: here.twin()["firmware"]["fwUpdateSubstatus"] == "Firmware already up to date", "up to date")
    assert here.twin()["firmware"]["fwUpdateStatus"] == "current"


def test_a_configuration_and_its_metrics(place, tmp_path, configurations):
    """Two chillers get it and a third device does not; one of the chillers cannot run it."""
    good, bad, other = (place("configuration", policy=unfit_when(tmp_path / name)) for name in ("good", "bad", "other"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/unfit").touch()
    for here in (good, bad):
        here.tag(devicetype="chiller")
    image = good.image("chiller.bin")
    check = info_of(good.firmware.directory / "www/chiller.bin")["fwPackageCheckValue"]

    def roll_out(version, **expected):
        back_end = good.run(CONFIGURATION, version, good.firmware.url("chiller.bin"), f"crc16:{check}")
        nobody = {"current": 0, "applying": 0, "rebooting": 0, "error": 0, "rolledback": 0}
        end = {"system": {"targetedCount": 2, "appliedCount": 2}, "custom": {**nobody, **expected}}
        try:
            eventually(lambda: back_end.objects()[-1:] == [end], f"{end} in {back_end.lines}")
        finally:
            back_end.stop()
            configurations.delete_configuration("firmware285")

    roll_out("1.0.1", current=1, rolledback=1)
    assert good.installed() == image
    assert bad.installed() == b"the old firmware"
    assert bad.twin()["firmware"]["fwUpdateSubstatus"].startswith("Rolled back to: 1.0.0; ")
    assert other.twin()["firmware"]["fwUpdateSubstatus"] == ""
    assert other.installed() == b"the old firmware"
    # The next one finds nothing of the last one's in its counts.
    (tmp_path / "bad/unfit").unlink()
    good.image("chiller.bin", content=image + b"2")
    check = info_of(good.firmware.directory / "www/chiller.bin")["fwPackageCheckValue"]
    roll_out("1.0.2", current=2)
    assert good.installed() == bad.installed() == image + b"2"


class Board:
    """A DevKit: its firmware says its version, and it restarts into a new one."""

    def __init__(self, place):
        self.here = here = place("devkit", install='restart = "exit"')
        configuration = here.agent.configuration.read_text()
        versioned = configuration.replace('current_version = "1.0.0"', 'version_from = { file = "app.bin" }')
        here.agent.configuration.write_text(versioned)
        here.agent.stop()
        here.agent.target.write_bytes(b"1.0.0\nthe old firmware")
        here.agent.start()
        eventually(lambda: self.firmware().get("currentFwVersion") == "1.0.0", "the first report")
        here.mark()

    def firmware(self):
        return self.here.twin().get("firmware", {})

    def build(self, version):
        """An image, and what a back end asks for; check value and size are what `image info` says of the file."""
        content = self.here.image(f"{version}.bin", content=version.encode() + b"\n" + self.here.image("noise"))
        info = info_of(self.here.firmware.directory / "www" / f"{version}.bin")
        asked = {"fwVersion": version, "fwPackageURI": self.here.firmware.url(f"{version}.bin")}
        return content, {**asked, "fwPackageCheckValue": info["fwPackageCheckValue"], "fwSize": info["fwSize"]}

    def off(self):
        """It applied the image and restarts: it is gone until `on`."""
        assert self.here.agent.process.wait(15) == 0

    def on(self, version, content):
        self.here.agent.start()
        current = {"currentFwVersion": version, "fwUpdateStatus": "Current"}
        end = eventually(lambda: current.items() <= self.firmware().items() and self.firmware(), version)
        assert (end["pendingFwVersion"], end["fwUpdateSubstatus"]) == ("", "")
        assert self.here.course("firmware", "fwUpdateStatus") == ["Current", "Downloading", "Verifying", "Applying", "Current"]
        assert self.here.installed() == content


def test_004_devkit(place):
    board = Board(place)
    here = board.here

    def update(version):
        content, asked = board.build(version)
        here.patch(**asked)
        board.off()
        board.on(version, content)
        assert asked["fwPackageURI"] in here.course("firmware", "fwUpdateSubstatus")

    assert board.firmware() == {
        "type": "IoTDevKit", "currentFwVersion": "1.0.0", "pendingFwVersion": "", "fwUpdateStatus": "Current",
        "fwUpdateSubstatus": "", "lastFwUpdateStartTime": "", "lastFwUpdateEndTime": "",
    }
    update("1.0.1")
    update("1.0.2")

    _, good = board.build("1.0.3")
    for change, substatus in [
        ({"fwPackageCheckValue": "1"}, "VerifyFailed"),
        ({"fwSize": good["fwSize"] - 1, "fwPackageCheckValue": "1"}, "FileSizeNotMatch"),
        ({"fwSize": good["fwSize"] + 1}, "FileSizeNotMatch"),
        ({"fwPackageURI": "http://localhost/1.0.3.bin"}, "URINotHTTPS"),
        ({"fwPackageURI": here.firmware.url("none.bin")}, "DownloadFailed"),
    ]:
        here.patch(**{**good, **change})
        eventually(lambda: here.course("firmware", "fwUpdateSubstatus")[-1:] == [substatus], f"{change}: {substatus}")
        assert board.firmware() == {
            "type": "IoTDevKit", "currentFwVersion": "1.0.2", "pendingFwVersion": "1.0.3", "fwUpdateStatus": "Error",
            "fwUpdateSubstatus": substatus, "lastFwUpdateStartTime": "", "lastFwUpdateEndTime": "",
        }
    # An equal or lower version, and a request without a URI, are ignored; the next good one is not.
    before = here.twin()["$version"]
    for ignored in [{**good, "fwVersion": "1.0.2"}, {**good, "fwVersion": "0.9.9"}, {**good, "fwPackageURI": None}]:
        here.patch(**ignored)
    update("1.0.10")
    reports = [e for e in here.hub.events if e["event"] == "reportedPatched" and e["device"] == here.device]
    [next_report] = [e["patch"]["firmware"] for e in reports if e["version"] == before + 1]
    assert next_report["pendingFwVersion"] == "1.0.10"


def test_004_devkit_by_configuration(place, configurations):
    """The portal's steps: the settings, the five metrics word for word, priority 10, all devices."""
    board = Board(place)

    def metric(status):
        return (
            f"SELECT deviceId FROM devices WHERE properties.reported.firmware.fwUpdateStatus='{status}' "
            "AND properties.reported.firmware.type='IoTDevKit'"
        )

    statuses = ["Current", "Downloading", "Verifying", "Applying", "Error"]
    for number, version in enumerate(["1.0.1", "1.0.2", "1.0.3"]):
        content, asked = board.build(version)
        if version == "1.0.3":
            asked["fwPackageCheckValue"] = "1"
        board.here.mark()
        name = f"devkit-{number}"
        configurations.create_configuration(Configuration(
            id=name, schema_version="1.0", priority=10, target_condition="*",
            content=ConfigurationContent(device_content={"properties.desired.firmware": asked}),
            metrics=ConfigurationMetrics(queries={status: metric(status) for status in statuses}),
        ))

        def counted():
            results = configurations.get_configuration(name).metrics.results
            return [status for status in statuses if results[status]]

        if version == "1.0.3":
            eventually(lambda: counted() == ["Error"], "the metric Error")
            assert board.firmware()["fwUpdateSubstatus"] == "VerifyFailed"
        else:
            board.off()
            eventually(lambda: counted() == ["Applying"], "the metric Applying")
            board.on(version, content)
            eventually(lambda: counted() == ["Current"], "the metric Current")
        system = configurations.get_configuration(name).system_metrics.results
        everybody = len(board.here.registry.get_devices())
        assert (system["targetedCount"], system["appliedCount"]) == (everybody, everybody)
        configurations.delete_configuration(name)
