"""A hub for the unmodified Azure SDKs.

TWINFLASH_HUB is the command that starts it (for example "target/debug/twinflash hub --json"); it takes --device, --mqtt-port
and --https-port, prints a "ready" line first, and ends with its standard input or SIGTERM. The MQTT port is 8883, because the
device SDK knows no other.
"""

import json
import os
import shlex
import subprocess
import time

import pytest


class Hub:
    """A running hub: how it is reached, and what it says happens."""

    def __init__(self, process, ready):
        self.process = process
        self.ready = ready
        with open(ready["ca"], encoding="ascii") as file:
            self.ca_pem = file.read()

    def device(self, name):
        return self.ready["devices"][name]

    @property
    def service(self):
        return self.ready["serviceConnectionString"]


@pytest.fixture(scope="session")
def hub():
    command = shlex.split(os.environ["TWINFLASH_HUB"])
    command += ["--device", "d1", "--device", "d2", "--mqtt-port", "8883", "--https-port", "0"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ready = json.loads(process.stdout.readline())
    assert ready["event"] == "ready"
    # Nobody reads the events; a full pipe would stop the hub's observer.
    import threading

    threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True).start()
    os.environ["REQUESTS_CA_BUNDLE"] = ready["ca"]
    yield Hub(process, ready)
    process.stdin.close()
    process.terminate()
    process.wait(10)


def eventually(condition, what, seconds=15):
    """Waits until condition() is true, and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)
