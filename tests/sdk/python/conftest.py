"""A hub for the unmodified Azure SDKs.

TWINFLASH_HUB is the command that starts it (for example "target/debug/twinflash hub --json"); it takes --device, --mqtt-port
and --https-port, prints a "ready" line first, and ends with SIGTERM. The MQTT port is 8883, because the device SDK knows no
other. The HTTPS port is 443 where that may be used, as the device SDK over WebSockets wants it; else any, and that test is
skipped.
"""

import json
import os
import shlex
import socket
import subprocess
import threading
import time

import pytest


class Hub:
    """A running hub: how it is reached."""

    def __init__(self, ready):
        self.ready = ready
        with open(ready["ca"], encoding="ascii") as file:
            self.ca_pem = file.read()

    def device(self, name):
        return self.ready["devices"][name]

    @property
    def host(self):
        return self.ready["hostName"]

    @property
    def service(self):
        return self.ready["serviceConnectionString"]


def may_use(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.fixture(scope="session")
def hub():
    command = shlex.split(os.environ["TWINFLASH_HUB"])
    for device in ["d1", "d2", "agent-1", "agent-2", "agent-3", "chiller", "job-1", "job-2"]:
        command += ["--device", device]
    command += ["--mqtt-port", "8883"]
    command += ["--https-port", "443" if may_use(443) else "0"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready"
        # Nobody looks at the events, but a full pipe would hold the hub up.
        threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True).start()
        os.environ["REQUESTS_CA_BUNDLE"] = ready["ca"]
        yield Hub(ready)
        assert process.poll() is None, "the hub is still there"
    finally:
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
