"""Every program in examples/python, as its head says, against `twinflash hub`: a device is killed in the middle of an update, too."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import zipfile

import pytest

pytest.importorskip("azure.iot.device")
if "TWINFLASH_HUB" not in os.environ:
    pytest.skip("TWINFLASH_HUB starts the hub: see tests/sdk/python/support.py", allow_module_level=True)

from azure.iot.hub.models import CloudToDeviceMethod  # noqa: E402

from conftest import ROOT, eventually  # noqa: E402

EXAMPLES = ROOT / "examples/python"
IMAGE = os.urandom(3_000_000)


class Program:
    """An example that runs, and what it has printed."""

    def __init__(self, program, *arguments):
        command = [sys.executable, "-W", "error::ResourceWarning", EXAMPLES / program, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines = []
        self.reader = threading.Thread(target=lambda: self.lines.extend(line.strip() for line in self.process.stdout))
        self.reader.start()

    def until(self, line):
        eventually(lambda: line in self.lines or self.process.poll() is not None, f"{line!r}; {self.lines}", 30)
        assert line in self.lines, (self.lines, self.process.stderr.read())

    def kill(self):
        self.process.kill()
        self.ended()

    def stop(self):
        """By Ctrl-C, which ends it at once and in order."""
        self.process.send_signal(signal.SIGINT)
        error = self.ended()
        assert (self.process.returncode, self.lines[-1]) == (0, "stopped"), (self.lines, error)

    def ended(self):
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.reader.join(10)
        error = self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()
        return error


@pytest.fixture
def start():
    running = []

    def start(*arguments):
        running.append(Program(*arguments))
        return running[-1]

    yield start
    for program in running:
        if program.process.poll() is None:
            program.kill()


def run(program, hub, *arguments):
    command = [sys.executable, EXAMPLES / program, "--connection", hub.service, *arguments]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, error = program.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        program.kill()
        out, error = program.communicate()
    return program.returncode, out.splitlines() + error.splitlines()


@pytest.mark.parametrize(
    ("program", "device"),
    [("device.py", "agent-1"), ("device_asyncio.py", "agent-2"), ("device_no_sdk.py", "agent-3")],
)
def test_a_device_and_its_back_end(hub, firmware, tmp_path, start, program, device):
    given = [program, "--connection", hub.device(device), "--ca", hub.ready["ca"], "--file", tmp_path / "app.bin",
             "--state", tmp_path / "state", "--image-ca", firmware.ca]  # fmt: skip
    firmware.put("slow-2.bin", IMAGE)
    running = start(*given)
    running.until("ready")
    check = ["--check", hashlib.sha256(IMAGE).hexdigest()]
    service = start("service.py", "--connection", hub.service, *check, device, firmware.url("slow-2.bin"))
    # Who is killed before it has answered never does.
    service.until('200 {"Response": "Firmware update started"}')
    running.until("downloading")
    running.kill()
    assert not (tmp_path / "app.bin").exists()

    running = start(*given)
    service.until("completed")
    assert (service.ended(), service.process.returncode) == ("", 0)
    assert (tmp_path / "app.bin").read_bytes() == IMAGE
    status, said = run("service.py", hub, device, firmware.url("none.bin"))
    assert status == 1 and "http-status" in said[-1]
    assert run("service.py", hub, device, "test.com")[0] == 1
    running.until("completed")
    running.stop()


def test_an_installer_of_ones_own(hub, registry, firmware, tmp_path, start):
    app = tmp_path / "app"
    given = ["own_installer.py", "--connection", hub.device("d1"), "--ca", hub.ready["ca"], "--directory", app, "--state",
             tmp_path / "state", "--image-ca", firmware.ca]  # fmt: skip

    def release(name, number):
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("main.py", f"print({number})")
            archive.writestr("data/noise", os.urandom(2_000_000))
        firmware.put(name, made.getvalue())
        return {"fwPackageUri": firmware.url(name), "fwPackageCheckValue": hashlib.sha256(made.getvalue()).hexdigest()}

    def ask(wanted):
        method = CloudToDeviceMethod(method_name="firmwareUpdate", payload=wanted)
        assert registry.invoke_device_method("d1", method).status == 200

    def runs():
        return (app / "current/main.py").read_text()

    running = start(*given)
    running.until("ready")
    ask(release("first.zip", 1))
    running.until("completed")
    assert runs() == "print(1)"
    assert sorted(os.listdir(app)) == ["current", "previous", "releases"], "which one is new is known, also once it is confirmed"
    ask(release("slow-second.zip", 2))
    eventually(lambda: (app / "incoming.zip").exists() and os.path.getsize(app / "incoming.zip"), "bytes")
    running.kill()
    assert runs() == "print(1)"
    running = start(*given)
    running.until("completed")
    assert runs() == "print(2)"
    firmware.put("no.zip", b"no zip")
    ask({"fwPackageUri": firmware.url("no.zip"), "fwPackageCheckValue": hashlib.sha256(b"no zip").hexdigest()})
    eventually(lambda: any("the image is no zip" in line for line in running.lines), running.lines)
    assert runs() == "print(2)"
    assert sorted(os.listdir(app)) == ["current", "releases"]
    running.stop()


def test_a_rollout(hub, firmware, tmp_path, start):
    firmware.put("new.bin", IMAGE)
    devices = []
    for name in ("d2", "chiller", "job-1"):
        devices.append(start(
            "device_no_sdk.py", "--contract", "configuration", "--connection", hub.device(name), "--ca", hub.ready["ca"],
            "--file", tmp_path / f"{name}.bin", "--state", tmp_path / name, "--image-ca", firmware.ca,
        ))  # fmt: skip
        devices[-1].until("ready")
    tag = ["--tag", "building=43", "--interval", "0.2"]
    add = ["--add", "d2", "--add", "chiller", "--add", "job-1"]
    check = hashlib.sha256(IMAGE).hexdigest()
    status, said = run("rollout.py", hub, *tag, *add, "--version", "2.0.0", "--check", check, firmware.url("new.bin"))
    assert (status, said[-1]) == (0, "3 of 3 devices run 2.0.0")
    for name in ("d2", "chiller", "job-1"):
        assert (tmp_path / f"{name}.bin").read_bytes() == IMAGE
        assert any(line.split()[:3] == [name, "2.0.0", "current"] for line in said)
    wrong = ["--version", "3.0.0", "--check", "00" * 32, "--id", "worse", "--priority", "20"]
    status, said = run("rollout.py", hub, *tag, *wrong, firmware.url("new.bin"))
    assert (status, said[-1]) == (1, "0 of 3 devices run 3.0.0")
    for device in devices:
        device.stop()
