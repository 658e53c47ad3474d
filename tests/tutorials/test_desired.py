"""The tutorials whose back ends write desired properties."""

from test_methods import unfit_when
from support import eventually, info_of

CONFIGURATION = "node_configuration.js"


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
    end = run("1.0.7", here.firmware.url("configuration-2.bin"), checks[2])
    assert end["fwUpdateStatus"] == "rolledback"
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


def test_004_devkit(place):
    """The whole way, with a restart into the new version; what `image info` says is what the twin is given."""
    here = place("devkit", install='restart = "exit"')
    (here.agent.configuration).write_text(
        here.agent.configuration.read_text().replace('current_version = "1.0.0"', 'version_from = { file = "app.bin" }')
    )
    here.agent.stop()
    here.agent.target.write_bytes(b"1.0.0\nthe old firmware")
    here.agent.start()

    def firmware():
        return here.twin().get("firmware", {})

    def image(name, version):
        content = here.image(name, content=version.encode() + b"\n" + here.image("noise"))
        info = info_of(here.firmware.directory / "www" / name)
        asked = {
            "fwVersion": version, "fwPackageURI": here.firmware.url(name),
            "fwPackageCheckValue": info["fwPackageCheckValue"], "fwSize": info["fwSize"],
        }
        return content, asked

    def update(version, name):
        content, asked = image(name, version)
        here.patch(**asked)
        assert here.agent.process.wait(15) == 0, "the board restarts"
        here.agent.start()
        end = eventually(lambda: firmware()["currentFwVersion"] == version and firmware(), version)
        assert (end["fwUpdateStatus"], end["pendingFwVersion"], end["fwUpdateSubstatus"]) == ("Current", "", "")
        assert here.course("firmware", "fwUpdateStatus") == ["Current", "Downloading", "Verifying", "Applying", "Current"]
        assert asked["fwPackageURI"] in here.course("firmware", "fwUpdateSubstatus")
        assert here.installed() == content

    first = eventually(lambda: firmware().get("fwUpdateStatus") and firmware(), "the first report")
    assert first == {
        "type": "IoTDevKit", "currentFwVersion": "1.0.0", "pendingFwVersion": "", "fwUpdateStatus": "Current",
        "fwUpdateSubstatus": "", "lastFwUpdateStartTime": "", "lastFwUpdateEndTime": "",
    }
    update("1.0.1", "devkit-1.bin")
    update("1.0.2", "devkit-2.bin")

    _, good = image("devkit-3.bin", "1.0.3")
    for change, substatus in [
        ({"fwPackageCheckValue": "1"}, "VerifyFailed"),
        ({"fwSize": good["fwSize"] - 1, "fwPackageCheckValue": "1"}, "FileSizeNotMatch"),
        ({"fwSize": good["fwSize"] + 1}, "FileSizeNotMatch"),
        ({"fwPackageURI": "http://localhost/devkit-3.bin"}, "URINotHTTPS"),
        ({"fwPackageURI": here.firmware.url("none.bin")}, "DownloadFailed"),
    ]:
        before = firmware()
        here.patch(**{**good, **change})
        eventually(lambda: here.course("firmware", "fwUpdateSubstatus")[-1:] == [substatus], f"{change}: {substatus}, {before}")
        assert firmware() == {
            "type": "IoTDevKit", "currentFwVersion": "1.0.2", "pendingFwVersion": "1.0.3", "fwUpdateStatus": "Error",
            "fwUpdateSubstatus": substatus, "lastFwUpdateStartTime": "", "lastFwUpdateEndTime": "",
        }
    # An equal or lower version, and a request without a URI, are ignored; the next good one is not.
    before = firmware()
    for ignored in [{**good, "fwVersion": "1.0.2"}, {**good, "fwVersion": "0.9.9"}, {**good, "fwPackageURI": None}]:
        here.patch(**ignored)
    update("1.0.10", "devkit-10.bin")
    assert before["fwUpdateStatus"] == "Error"
