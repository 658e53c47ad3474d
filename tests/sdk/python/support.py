"""A hub for the unmodified Azure SDKs, a server for firmware, and an agent.

TWINFLASH_HUB is the command that starts it (for example "target/debug/twinflash hub --json"); it takes --device, --mqtt-port
and --https-port, prints a "ready" line first, and ends with SIGTERM. The MQTT port is 8883, because the device SDK knows no
other. The HTTPS port is 443 where that may be used, as the device SDK over WebSockets wants it; else any, and that test is
skipped.
"""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest
from azure.iot.hub import IoTHubRegistryManager

TWINFLASH = shlex.split(os.environ["TWINFLASH_HUB"])[0]


class Hub:
    """A running hub: how it is reached."""

    def __init__(self, ready):
        self.ready = ready
        self.events = []
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
        running = Hub(ready)
        # Read to the end: a full pipe would hold the hub up.
        threading.Thread(target=lambda: running.events.extend(map(json.loads, process.stdout)), daemon=True).start()
        os.environ["REQUESTS_CA_BUNDLE"] = ready["ca"]
        yield running
        assert process.poll() is None, "the hub is still there"
    finally:
        process.terminate()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


def eventually(condition, what, seconds=15):
    """Waits until condition() is true, and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Firmware:
    """nginx, with a certificate of an authority of its own."""

    def __init__(self, directory):
        self.directory = directory
        self.port = free_port()
        self.ca = directory / "ca.pem"
        openssl = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        subprocess.run(
            [*openssl, "-x509", "-days", "2", "-subj", "/CN=firmware CA", "-keyout", directory / "ca.key", "-out", self.ca],
            check=True, capture_output=True,
        )
        subprocess.run(
            [*openssl, "-subj", "/CN=localhost", "-keyout", directory / "key.pem", "-out", directory / "csr.pem"],
            check=True, capture_output=True,
        )
        (directory / "names").write_text("subjectAltName=DNS:localhost\n")
        subprocess.run(
            ["openssl", "x509", "-req", "-in", directory / "csr.pem", "-CA", self.ca, "-CAkey", directory / "ca.key",
             "-days", "2", "-extfile", directory / "names", "-out", directory / "cert.pem"],
            check=True, capture_output=True,
        )
        (directory / "www").mkdir()
        (directory / "nginx.conf").write_text(
            f"""daemon off; user root root; pid {directory}/pid; error_log {directory}/error.log;
            events {{}}
            http {{
              access_log off; client_body_temp_path {directory}/tmp; proxy_temp_path {directory}/tmp;
              fastcgi_temp_path {directory}/tmp; uwsgi_temp_path {directory}/tmp; scgi_temp_path {directory}/tmp;
              server {{
                listen 127.0.0.1:{self.port} ssl; server_name localhost;
                ssl_certificate {directory}/cert.pem; ssl_certificate_key {directory}/key.pem;
                root {directory}/www;
              }}
            }}"""
        )
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        self.process = subprocess.Popen([nginx, "-p", directory, "-c", directory / "nginx.conf"])

    def url(self, name):
        return f"https://localhost:{self.port}/{name}"

    def put(self, name, content):
        (self.directory / "www" / name).write_bytes(content)
        return self.directory / "www" / name


@pytest.fixture(scope="module")
def firmware(tmp_path_factory):
    server = Firmware(tmp_path_factory.mktemp("firmware"))
    yield server
    server.process.terminate()
    server.process.wait(10)


class Agent:
    """`twinflash device`, and the file it updates."""

    def __init__(self, hub, firmware, directory, device, contract, connection=None, install="", policy=""):
        """`device` is one the hub was started with, unless its connection string is given; `install` and `policy` go into the
        configuration's sections."""
        self.target = directory / "app.bin"
        self.target.write_bytes(b"the old firmware")
        self.configuration = directory / "device.toml"
        self.configuration.write_text(
            f"""connection_string = "{connection or hub.device(device)}"
            ca = "{hub.ready["ca"]}"
            contract = "{contract}"
            state_dir = "state"
            current_version = "1.0.0"
            [install]
            file = "app.bin"
            {install}
            [http]
            ca = "{firmware.ca}"
            [policy]
            {policy}
            """
        )
        self.events = []
        self.start()

    def start(self):
        self.events.clear()
        self.process = subprocess.Popen(
            [TWINFLASH, "device", "--json", "--config", self.configuration],
            stdout=subprocess.PIPE, stderr=sys.stderr, text=True,
        )
        threading.Thread(target=self.read, daemon=True).start()
        eventually(lambda: self.seen("connected"), "the agent is connected")

    def read(self):
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def seen(self, event):
        return [e for e in self.events if e["event"] == event]

    def stop(self):
        self.process.terminate()
        assert self.process.wait(10) == 0


@pytest.fixture
def registry(hub):
    return IoTHubRegistryManager.from_connection_string(hub.service)


def info_of(path):
    output = subprocess.run([TWINFLASH, "image", "info", "--json", path], check=True, capture_output=True)
    return json.loads(output.stdout)
