"""The tutorials' back ends, as they stand in examples, against a hub, an agent and a server of firmware."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from azure.iot.hub.models import Twin, TwinProperties

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/sdk/python"))

from support import Agent, eventually, firmware, hub, registry  # noqa: E402, F401

PROGRAMS = {".js": ("node", ROOT / "examples/node"), ".py": (sys.executable, ROOT / "examples/backends")}


class BackEnd:
    """A back end that runs: what it printed, and its end."""

    def __init__(self, hub, program, *arguments):
        if program.endswith(".js") and hub.ready["httpsPort"] != 443:
            pytest.skip("port 443 may not be used here, and the SDK for Node knows no other")
        environment = {
            **os.environ,
            "TWINFLASH_SERVICE": hub.service,
            "NODE_EXTRA_CA_CERTS": hub.ready["ca"],
            "NODE_PATH": str(ROOT / "tests/sdk/node/node_modules"),
        }
        self.lines = []
        interpreter, directory = PROGRAMS[Path(program).suffix]
        self.process = subprocess.Popen(
            [interpreter, directory / program, *arguments],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        self.reader = threading.Thread(target=lambda: self.lines.extend(map(str.rstrip, self.process.stdout)))
        self.reader.start()

    def ended(self, seconds=20):
        """Waits for its end; returns its status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"goes on and on: {self.lines}") from None
        finally:
            self.stop()

    def prints(self, text):
        eventually(lambda: any(text in line for line in self.lines), f"{text} in {self.lines}")

    def stop(self):
        assert self.process.poll() is not None or self.process.terminate() is None
        self.process.wait(10)
        self.reader.join(10)

    def objects(self):
        """The JSON objects it printed, whatever stands before them."""
        return [json.loads(line[line.index("{"):]) for line in self.lines if "{" in line]


def merged(value, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for name, member in patch.items():
        if member is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), member)
    return result


def at(value, path):
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


class Place:
    """A hub, a server of firmware and one agent; runs back ends."""

    def __init__(self, hub, firmware, registry, directory, contract, **more):
        self.hub, self.firmware, self.registry = hub, firmware, registry
        self.device = directory.name
        key = "dHV0b3JpYWxzdHV0b3JpYWxzdHV0b3JpYWxzISEhISE="
        registry.create_device_with_sas(self.device, key, key, "enabled")
        connection = ";".join(
            f"DeviceId={self.device}" if field.startswith("DeviceId=") else f"SharedAccessKey={key}" if "AccessKey=" in field else field
            for field in hub.device("d1").split(";")
        )
        self.agent = Agent(hub, firmware, directory, self.device, contract, connection, **more)
        self.mark()

    def mark(self):
        """What `events`, `course` and `at_the_answer` tell begins here."""
        self.before = self.twin()
        self.begin = len(self.hub.events)

    def events(self, kind):
        return [e for e in self.hub.events[self.begin:] if e["event"] == kind and e.get("device") == self.device]

    def course(self, *path):
        """What stood at a place of the twin's reported properties, in turn, without repetitions; nothing if there was no report."""
        now = self.twin()["$version"]
        begin = self.before["$version"]
        patches = lambda: [e for e in self.hub.events if e["event"] == "reportedPatched" and e["device"] == self.device]  # noqa: E731
        eventually(lambda: now <= begin or patches()[-1:] and patches()[-1]["version"] >= now, "the hub told of every report")
        values, twin = [], self.before
        for event in patches():
            if event["version"] > begin:
                twin = merged(twin, event["patch"])
                value = at(twin, path)
                if values[-1:] != [value]:
                    values.append(value)
        return values

    def at_the_answer(self, *path):
        """What stood there when the device answered the method."""
        eventually(lambda: self.events("methodAnswered"), "the answer")
        twin = self.before
        for event in self.hub.events[self.begin:]:
            if event.get("device") == self.device and event["event"] == "methodAnswered":
                return at(twin, path)
            if event.get("device") == self.device and event["event"] == "reportedPatched":
                twin = merged(twin, event["patch"])
        return None

    def twin(self):
        return self.registry.get_twin(self.device).properties.reported

    def patch(self, **firmware):
        self.mark()
        self.registry.update_twin(self.device, Twin(properties=TwinProperties(desired={"firmware": firmware})), "*")

    def tag(self, **tags):
        self.registry.update_twin(self.device, Twin(tags=tags), "*")

    def image(self, name, size=300_000, content=None):
        content = content or os.urandom(size)
        self.firmware.put(name, content)
        return content

    def run(self, program, *arguments):
        self.mark()
        return BackEnd(self.hub, program, *arguments)

    def installed(self):
        return self.agent.target.read_bytes()


@pytest.fixture
def place(hub, firmware, registry, tmp_path):
    places = []

    def make(contract, **more):
        directory = tmp_path / f"{tmp_path.name.strip('0123456789').replace('_', '-')}{len(places)}"
        directory.mkdir()
        places.append(Place(hub, firmware, registry, directory, contract, **more))
        return places[-1]

    yield make
    for made in places:
        made.agent.stop()
        registry.delete_device(made.device)
