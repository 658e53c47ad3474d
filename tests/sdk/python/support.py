"""A hub for the unmodified Azure SDKs, a server for firmware, and an agent.

TWINFLASH_HUB is the command that starts it (for example "target/debug/twinflash hub --json"); it takes --device, --mqtt-port
and --https-port, prints a "ready" line first, and ends with SIGTERM. The MQTT port is 8883, because the device SDK knows no
other. The HTTPS port is 443 where that may be used, as the device SDK over WebSockets wants it; else any, and that test is
skipped.
"""

import base64
import hashlib
import hmac
import json
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse

import pytest
from azure.iot.hub import IoTHubRegistryManager
from msrest.exceptions import HttpOperationError
from paho.mqtt import client as paho

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
    for device in ["d1", "d2", "aio", "teller", "agent-1", "agent-2", "agent-3", "chiller", "job-1", "job-2"]:
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


def error(call):
    """What a service SDK's call is refused with."""
    with pytest.raises(HttpOperationError) as caught:
        call()
    return caught.value.response


def websockets(hub):
    """Leaves out a test that needs them where they cannot be had."""
    if hub.ready["httpsPort"] != 443:
        pytest.skip("port 443 may not be used here, and the SDK knows no other")


def mqtt(hub, name, prepare=lambda client: None):
    """A device by other means than the SDKs: connected, once `prepare` has set what else it is to say."""
    fields = dict(field.split("=", 1) for field in hub.device(name).split(";"))
    host = fields["HostName"]
    resource = urllib.parse.quote(f"{host}/devices/{name}", safe="")
    expiry = int(time.time()) + 60
    key = base64.b64decode(fields["SharedAccessKey"])
    digest = hmac.new(key, f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
    signature = urllib.parse.quote(base64.b64encode(digest), safe="")
    client = paho.Client(client_id=name, clean_session=False)
    client.username_pw_set(
        f"{host}/{name}/api-version=2016-11-14",
        f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}",
    )
    client.tls_set_context(ssl.create_default_context(cadata=hub.ca_pem))
    prepare(client)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect(host, 8883)
    client.loop_start()
    assert connected.wait(10)
    return client


def take_over(hub, name):
    """Connects with the same id, and goes: the hub drops the first connection."""
    client = mqtt(hub, name)
    client.disconnect()
    client.loop_stop()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Firmware:
    """nginx, with a certificate of an authority of its own. What has a name like slow-1.bin comes at 1 MiB/s."""

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
                location ~ /slow- {{ limit_rate 1m; }}
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


class Running:
    """A `twinflash` command that prints JSON, and what it has printed."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [TWINFLASH, "--json", *arguments], stdout=subprocess.PIPE, stderr=sys.stderr, text=True
        )
        # Of its own: the last lines of the one before may still be on their way.
        self.events = []
        lines = map(json.loads, self.process.stdout)
        threading.Thread(target=self.events.extend, args=[lines], daemon=True).start()

    def seen(self, event):
        return [e for e in self.events if e["event"] == event]

    def stop(self):
        self.process.terminate()
        return self.process.wait(10)


class Agent(Running):
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
        self.start()

    def start(self):
        super().__init__("device", "--config", self.configuration)
        eventually(lambda: self.seen("connected"), "the agent is connected")

    def stop(self):
        assert super().stop() == 0


@pytest.fixture
def registry(hub):
    return IoTHubRegistryManager.from_connection_string(hub.service)


def info_of(path):
    output = subprocess.run([TWINFLASH, "image", "info", "--json", path], check=True, capture_output=True)
    return json.loads(output.stdout)
