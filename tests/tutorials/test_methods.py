"""The tutorials whose back ends call a direct method. Each runs to completion twice, to each failure in between, and once more:
no outcome of one update may be taken for that of the next."""

from support import eventually

NODE = "service-direct-method.js"
STATE_MACHINE = "service-iothub-dm.js"
PYTHON = "python_firmware_status.py"
DOTNET = "dotnet_loop.py"


def unfit_when(directory):
    """A health check that fails while there is a file named unfit."""
    return f'confirm = ["sh", "-c", "test ! -e {directory}/unfit"]\nconfirm_attempts = 1\nconfirm_time = 1'


def test_000_direct_method(place, tmp_path):
    here = place("node-direct-method", policy=unfit_when(tmp_path))
    course = ["downloading", "download complete", "applying"]
    done, failed = "apply firmware image complete", "download image failed"
    images = [here.image(f"000-{n}.bin") for n in range(3)]

    for n in (0, 1):
        back_end = here.run(NODE, here.device, here.firmware.url(f"000-{n}.bin"))
        assert back_end.ended() == 0
        assert back_end.lines[0] == '200 "Firmware update started."'
        states = back_end.objects()
        assert states[-1]["status"] == done
        assert set(states[-1]) == {
            "status", "startedDownloadingTime", "downloadCompleteTime", "startedApplyingImage", "lastFirmwareUpdate",
        }
        assert here.at_the_answer("firmwareUpdate", "status") in (None, *course)
        assert [s for s in here.course("firmwareUpdate", "status") if s] == [*course, done]
        assert here.installed() == images[n]

    for url, check, code in [("none.bin", [], "http-status"), ("000-2.bin", ["crc16:0"], "crc-mismatch")]:
        back_end = here.run(NODE, here.device, here.firmware.url(url), *check)
        assert back_end.ended() == 1
        end = back_end.objects()[-1]
        assert (end["status"], end["error"]["code"]) == (failed, code)
        assert "lastFirmwareUpdate" not in end
        assert here.installed() == images[1]

    back_end = here.run(NODE, here.device, "http://localhost/000-2.bin")
    assert back_end.ended() == 1
    assert back_end.lines == ['400 "Invalid URL format.  Must use https:// protocol."']
    assert here.twin()["firmwareUpdate"]["status"] == failed

    (tmp_path / "unfit").touch()
    back_end = here.run(NODE, here.device, here.firmware.url("000-2.bin"))
    assert back_end.ended() == 1
    assert back_end.objects()[-1]["status"] == "apply image failed"
    assert here.installed() == images[1]
    (tmp_path / "unfit").unlink()
    back_end = here.run(NODE, here.device, here.firmware.url("000-2.bin"))
    assert back_end.ended() == 0
    assert "error" not in back_end.objects()[-1]
    assert here.installed() == images[2]


def test_001_state_machine(place, tmp_path):
    """It goes on until Ctrl-C, and never stands still on a twin that lacks what it looks for."""
    here = place("iothub-dm", policy=unfit_when(tmp_path))
    images = [here.image(f"001-{n}.bin") for n in range(3)]

    def run(url, status, *check):
        back_end = here.run(STATE_MACHINE, here.device, url, *check)
        back_end.prints(f'"status":"{status}"')
        back_end.stop()
        return back_end

    for n in (0, 1):
        back_end = run(here.firmware.url(f"001-{n}.bin"), "applyComplete")
        assert all(line.startswith("FWUpdate reported: ") for line in back_end.lines)
        course = here.course("iothubDM", "firmwareUpdate", "status")
        assert course == ["waiting", "downloading", "downloadComplete", "applying", "applyComplete"]
        assert back_end.objects()[-1]["fwPackageUri"] == here.firmware.url(f"001-{n}.bin")
        assert here.installed() == images[n]
    run(here.firmware.url("none.bin"), "downloadFailed")
    back_end = run(here.firmware.url("001-2.bin"), "downloadFailed", "crc32:00000000")
    assert back_end.objects()[-1]["error"]["code"] == "crc-mismatch"
    back_end = here.run(STATE_MACHINE, here.device, "http://localhost/001-2.bin")
    back_end.prints("The device refused: 400")
    back_end.stop()
    (tmp_path / "unfit").touch()
    run(here.firmware.url("001-2.bin"), "applyFailed")
    assert here.installed() == images[1]
    (tmp_path / "unfit").unlink()
    run(here.firmware.url("001-2.bin"), "applyComplete")
    assert here.installed() == images[2]


def test_002_dotnet_loop(place, tmp_path):
    here = place("iothub-dm", policy=unfit_when(tmp_path))
    images = [here.image(f"002-{n}.bin") for n in range(3)]
    # The loop looks two levels into what a device that never had an update reports.
    first = eventually(lambda: here.twin().get("iothubDM"), "the first report")
    assert first == {"firmwareVersion": "1.0.0", "firmwareUpdate": {"status": "waiting"}}

    def run(url):
        back_end = here.run(DOTNET, here.device, url)
        assert back_end.ended() == 0, back_end.lines
        assert back_end.lines[-1] == "Stop polling."
        return back_end.objects()[-1]["firmwareUpdate"]

    for n in (0, 1):
        end = run(here.firmware.url(f"002-{n}.bin"))
        assert end["status"] == "applyComplete"
        assert set(end) == {
            "status", "fwPackageUri", "startedWaitingTime", "downloadCompleteTime", "startedApplyingImage", "lastFirmwareUpdate",
        }
        assert end["fwPackageUri"] == here.firmware.url(f"002-{n}.bin")
        assert here.installed() == images[n]
        # The body, byte for byte, reached the device as JSON.
        assert here.events("methodCalled")[0]["payload"] == {"fwPackageUri": end["fwPackageUri"]}
        assert "lastFirmwareUpdate" not in here.at_the_answer("iothubDM", "firmwareUpdate")
    end = run(here.firmware.url("none.bin"))
    assert (end["status"], end["error"]["code"]) == ("downloadFailed", "http-status")
    (tmp_path / "unfit").touch()
    end = run(here.firmware.url("002-2.bin"))
    assert (end["status"], end["error"]["code"]) == ("applyFailed", "not-confirmed")
    (tmp_path / "unfit").unlink()
    assert "error" not in run(here.firmware.url("002-2.bin"))
    assert here.installed() == images[2]

    # A refusal is answered and changes nothing: the loop waits, as the tutorial's own does.
    back_end = here.run(DOTNET, here.device, "http://localhost/002.bin")
    back_end.prints("Invoked firmware update on device.")
    assert '"status":400' in back_end.lines[-1]
    back_end.stop()
    assert here.course("iothubDM") == []


def test_003_words_in_the_twins_text(place, tmp_path):
    here = place("python-firmware-status", policy=unfit_when(tmp_path))
    images = [here.image(f"003-{n}.bin") for n in range(3)]
    assert eventually(lambda: here.twin().get("firmwareStatus"), "the first report") == "standBy"
    words = ["Waiting on device...", "Downloading firmware...", "Download complete, applying firmware...", "Firmware applied"]

    def run(url, *check):
        return here.run(PYTHON, here.device, url, "--interval", "0.1", *check)

    for n in (0, 1):
        back_end = run(here.firmware.url(f"003-{n}.bin"))
        assert back_end.ended() == 0
        assert back_end.lines[:2] == ["Direct method called.", '{"Response": "Firmware update started"}']
        *course, last = back_end.lines[2:-1]
        assert last == "Firmware applied"
        assert course == sorted(course, key=words.index), course
        assert here.course("firmwareStatus") == ["standBy", "downloading", "applying", "completed"]
        assert here.installed() == images[n]
        assert here.at_the_answer("lastFirmwareUpdate") is None

    # The tutorial knows no failure: its back end goes on, and says that it does not know.
    (tmp_path / "unfit").touch()
    failures = [
        ("none.bin", [], "http-status"), ("003-2.bin", ["--check", "crc16:0"], "crc-mismatch"), ("003-2.bin", [], "not-confirmed"),
    ]
    for url, check, code in failures:
        back_end = run(here.firmware.url(url), *check)
        back_end.prints("Unknown status")
        back_end.stop()
        assert "Firmware applied" not in back_end.lines
        twin = here.twin()
        assert (twin["firmwareStatus"], twin["firmwareError"]["code"]) == ("failed", code)
        assert "lastFirmwareUpdate" not in twin
    (tmp_path / "unfit").unlink()
    # The tutorial's own example is no URL; and one that is, but not https.
    for url in ["test.com", "http://localhost/003.bin"]:
        back_end = run(url)
        back_end.prints("Unknown status")
        back_end.stop()
        assert url in back_end.lines[1]
        assert here.course("firmwareStatus") == []
    assert run(here.firmware.url("003-2.bin")).ended() == 0
    assert "firmwareError" not in here.twin()
    assert here.installed() == images[2]
