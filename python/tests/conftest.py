"""A server on this machine, and updaters that use it. The hub is tests/sdk/python's, for the tests that want one."""

import hashlib
import http.server
import os
import pathlib
import signal
import sys
import threading
import time

import pytest

import twinflash

ROOT = pathlib.Path(__file__).resolve().parents[2]
# At the end: there is a conftest, too.
sys.path.append(str(ROOT / "tests/sdk/python"))

# The hub and all that goes with it; programs that use what is below leave that out.
if "TWINFLASH_HUB" in os.environ:
    from support import firmware, hub, registry  # noqa: F401

# A shell that starts this in the background has it ignore Ctrl-C, and so would the programs that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

IMAGE = bytes(range(256)) * 4096


class Server(http.server.ThreadingHTTPServer):
    """/image is IMAGE; /slow is IMAGE, of which only the first part comes until `go` is set; all else is 404."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.go = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # Clients that go away are what is tested.

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path not in ("/image", "/slow"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(IMAGE)))
        self.end_headers()
        self.wfile.write(IMAGE[:100_000])
        if self.path == "/slow":
            self.server.go.wait(60)
        self.wfile.write(IMAGE[100_000:])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = Server()
    yield server
    server.go.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def make(tmp_path):
    """Makes updaters, and closes them."""
    made = []

    def make(**given):
        given.setdefault("state_dir", tmp_path / "state")
        given.setdefault("install", twinflash.FileInstall(tmp_path / "app.bin"))
        given.setdefault("current_version", "1.0.0")
        given.setdefault("policy", twinflash.Policy(allow_http=True, answer_wait=0, retry_first=0.05))
        made.append(twinflash.Updater(**given))
        return made[-1]

    yield make
    for updater in made:
        updater.close()


def eventually(condition, what, seconds=15):
    """Waits until condition() is true, and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def serve(updater):
    """The least a transport does: the hub takes every report and its twin is empty. Ends with the updater."""

    def run():
        for outbound in updater.reports():
            if isinstance(outbound, twinflash.ReadTwin):
                updater.handle_twin({"desired": {"$version": 1}, "reported": {"$version": 1}}, complete=True)
            else:
                sent.append(outbound.patch)
                updater.report_done(outbound.id, 204)

    sent = []
    updater.connected()
    threading.Thread(target=run, daemon=True).start()
    return sent


def ask(updater, url, image=IMAGE):
    """Asks for an update as a back end does by contract iothub-dm."""
    return updater.handle_method("firmwareUpdate", {"fwPackageUri": url, "fwPackageCheckValue": hashlib.sha256(image).hexdigest()})


def in_a_process(state_dir):
    """For multiprocessing, which finds functions by their names."""
    with twinflash.Updater(state_dir=state_dir, install=twinflash.FileInstall("app.bin"), current_version="1.0.0") as updater:
        return updater.status().running_version
