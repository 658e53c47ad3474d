"""The whole way, on nobody's word but its own: the unmodified azure-iot-hub SDK calls the method and reads the twin, nginx
serves the image over HTTPS, curl fetches the same image and agrees with what `image info` said of it, and the twinflash agent
updates a file."""

import hashlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading

import pytest
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties

from conftest import eventually

TWINFLASH = shlex.split(os.environ["TWINFLASH_HUB"])[0]


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
            f"""daemon off; pid {directory}/pid; error_log {directory}/error.log;
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
    # nginx drops its rights to read below root's temporary directory.
    for parent in [server.directory, *server.directory.parents][:3]:
        os.chmod(parent, 0o755)
    yield server
    server.process.terminate()
    server.process.wait(10)


class Agent:
    """`twinflash device`, and the file it updates."""

    def __init__(self, hub, firmware, directory, device, contract):
        self.target = directory / "app.bin"
        self.target.write_bytes(b"the old firmware")
        (directory / "device.toml").write_text(
            f"""connection_string = "{hub.device(device)}"
            ca = "{hub.ready["ca"]}"
            contract = "{contract}"
            state_dir = "state"
            current_version = "1.0.0"
            [install]
            file = "app.bin"
            [http]
            ca = "{firmware.ca}"
            """
        )
        self.events = []
        self.process = subprocess.Popen(
            [TWINFLASH, "device", "--json", "--config", directory / "device.toml"],
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
def agent(hub, firmware, tmp_path, request):
    device, contract = request.param
    agent = Agent(hub, firmware, tmp_path, device, contract)
    yield agent
    agent.stop()


@pytest.fixture
def registry(hub):
    return IoTHubRegistryManager.from_connection_string(hub.service)


def info_of(path):
    output = subprocess.run([TWINFLASH, "image", "info", "--json", path], check=True, capture_output=True)
    return json.loads(output.stdout)


def call(registry, device, **payload):
    method = CloudToDeviceMethod(method_name="firmwareUpdate", payload=payload)
    return registry.invoke_device_method(device, method)


@pytest.mark.parametrize("agent", [("agent-1", "iothub-dm")], indirect=True)
def test_a_method_updates_a_file(agent, firmware, registry):
    image = os.urandom(5_000_000)
    described = info_of(firmware.put("image.bin", image))
    fetched = subprocess.run(
        ["curl", "--silent", "--fail", "--cacert", firmware.ca, firmware.url("image.bin")], check=True, capture_output=True
    ).stdout
    assert hashlib.sha256(fetched).hexdigest() == described["sha256"]
    assert len(fetched) == described["fwSize"]

    def reported():
        return registry.get_twin("agent-1").properties.reported["iothubDM"]["firmwareUpdate"]

    answer = call(registry, "agent-1", fwPackageUri=firmware.url("image.bin?sig=secret"), fwPackageCheckValue=described["sha256"])
    assert (answer.status, answer.payload) == (200, "FirmwareUpdate started.")
    done = eventually(lambda: reported()["status"] == "applyComplete" and reported(), "applyComplete")
    assert agent.target.read_bytes() == image
    assert done["fwPackageUri"] == firmware.url("image.bin")
    assert "error" not in done

    # The next one can start; it fails at once, says why, and leaves the file alone.
    answer = call(registry, "agent-1", fwPackageUri=firmware.url("none.bin"))
    assert answer.status == 200
    assert reported()["status"] != "applyComplete", "the answer comes after the last outcome is gone"
    failed = eventually(lambda: reported()["status"] == "downloadFailed" and reported(), "downloadFailed")
    assert failed["error"]["code"] == "http-status"
    assert "404" in failed["error"]["message"]

    answer = call(registry, "agent-1", fwPackageUri=firmware.url("image.bin"), fwPackageCheckValue="crc16:0000")
    assert answer.status == 200
    failed = eventually(
        lambda: reported().get("error", {}).get("code") == "crc-mismatch" and reported(), "crc-mismatch"
    )
    assert failed["status"] == "downloadFailed"
    answer = call(registry, "agent-1", fwPackageUri="http://localhost/image.bin")
    assert answer.status == 400
    assert "http://localhost/image.bin" in answer.payload
    assert agent.target.read_bytes() == image
    assert "secret" not in json.dumps(agent.events)


@pytest.mark.parametrize("agent", [("agent-2", "configuration")], indirect=True)
def test_desired_properties_update_a_file(agent, firmware, registry):
    image = os.urandom(3_000_000)
    described = info_of(firmware.put("desired.bin", image))
    wanted = {
        "fwVersion": "1.0.1",
        "fwPackageURI": firmware.url("desired.bin"),
        "fwPackageCheckValue": described["fwPackageCheckValue"],
        "fwSize": described["fwSize"],
    }

    def reported():
        return registry.get_twin("agent-2").properties.reported.get("firmware", {})

    first = eventually(reported, "the first report")
    assert sorted(first) == [
        "currentFwVersion", "fwUpdateStatus", "fwUpdateSubstatus", "lastFwUpdateEndTime", "lastFwUpdateStartTime",
        "pendingFwVersion",
    ]
    assert (first["currentFwVersion"], first["pendingFwVersion"], first["fwUpdateStatus"]) == ("1.0.0", "", "current")
    etag = registry.get_twin("agent-2").etag
    registry.update_twin("agent-2", Twin(properties=TwinProperties(desired={"firmware": wanted})), etag)
    done = eventually(lambda: reported()["currentFwVersion"] == "1.0.1" and reported(), "version 1.0.1")
    assert (done["fwUpdateStatus"], done["fwUpdateSubstatus"], done["pendingFwVersion"]) == ("current", "", "")
    assert done["lastFwUpdateStartTime"] <= done["lastFwUpdateEndTime"]
    assert agent.target.read_bytes() == image
