"""What a process may do to an updater: signals, forks, and its end."""

import os
import signal
import subprocess
import sys
import time

import pytest

import twinflash
from conftest import ROOT, ask, eventually, serve

# A program that has an updater, and one that runs a slow update.
PROGRAM = """
import atexit
after = []  # Called after what twinflash does at the end.
atexit.register(lambda: [call() for call in after])
import os, signal, sys, threading, time
sys.path.insert(0, {tests!r})
import conftest, twinflash
directory = {directory!r}
server = conftest.Server()
policy = twinflash.Policy(allow_http=True, answer_wait=0)
updater = twinflash.Updater(state_dir=directory + "/state", install=twinflash.FileInstall(directory + "/app.bin"),
                            current_version="1.0.0", policy=policy)
def downloading():
    conftest.serve(updater)
    assert conftest.ask(updater, server.url("slow")).status == 200
    conftest.eventually(lambda: updater.status().bytes, "bytes")
"""


@pytest.fixture
def program(tmp_path):
    def program(code):
        start = PROGRAM.format(tests=str(ROOT / "python/tests"), directory=str(tmp_path))
        command = [sys.executable, "-W", "error", "-c", start + code]
        environment = {name: value for name, value in os.environ.items() if name != "TWINFLASH_HUB"}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return program


def ended(process, seconds=20):
    """Its end, in words; it must come by itself."""
    try:
        out, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, error = process.communicate()
        raise AssertionError(f"it hangs: {out}\n{error}") from None
    return process.returncode, out, error


def interrupted(process):
    """Its end by Ctrl-C while it waits; it must come at once, not at the end of the wait."""
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.3)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    end = ended(process)
    assert time.monotonic() - start < 15
    return end


@pytest.mark.parametrize(
    "call",
    [
        "updater.wait()",
        "updater.wait(30)",
        "next(iter(updater.events()))",
        "updater.events().next(30)",
        "next(updater.reports())",
        "updater.next_outbound(30)",
    ],
)
def test_ctrl_c_ends_every_wait(program, call):
    process = program(f"""
try:
    print("waiting", flush=True)
    {call}
except KeyboardInterrupt:
    print("interrupted", updater.closed)
""")
    assert interrupted(process) == (0, "interrupted False\n", "")


@pytest.mark.parametrize(
    "call",
    [
        "twinflash.Updater(state_dir=directory + '/b', install=updater_of, version_from={'command': ['sleep', '30']})",
        "twinflash.Updater(state_dir=directory + '/b', install=Hangs())",
    ],
)
def test_ctrl_c_ends_a_start_that_hangs(program, call):
    process = program(f"""
from test_installer import InMemory
class Hangs(InMemory):
    def inspect(self):
        go.wait(30)
        return "old"
updater_of, go = twinflash.FileInstall(directory + "/b.bin"), threading.Event()
try:
    print("waiting", flush=True)
    {call}
except KeyboardInterrupt:
    print("interrupted")
go.set()
""")
    assert interrupted(process) == (0, "interrupted\n", "")


def test_ctrl_c_ends_a_method_that_waits_for_its_first_report(program):
    process = program("""
updater.close()
updater = twinflash.Updater(state_dir=directory + "/state", install=twinflash.FileInstall(directory + "/app.bin"),
                            policy=twinflash.Policy(allow_http=True, answer_wait=60))
updater.connected()
try:
    print("waiting", flush=True)
    conftest.ask(updater, server.url("image"))
except KeyboardInterrupt:
    print("interrupted")
""")
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert ended(process) == (0, "interrupted\n", "")


@pytest.mark.parametrize("how", ["", "sys.exit(0)", "updater.close()", "del updater", "updater = policy"])
def test_the_end_while_an_update_runs(program, how):
    assert ended(program(f"downloading()\n{how}\nprint('end')")) == (0, "end\n" * (how != "sys.exit(0)"), "")


def test_the_end_while_threads_wait(program):
    code = """
downloading()
events = updater.events()
for call in (updater.wait, lambda: list(events), lambda: list(updater.events()), updater.wait, lambda: time.sleep(60)):
    threading.Thread(target=call, daemon=True).start()
time.sleep(0.3)
print("end")
"""
    assert ended(program(code)) == (0, "end\n", "")


def test_the_end_closes_what_runs(program):
    code = """
downloading()
after.append(lambda: print("closed", updater.closed))
"""
    assert ended(program(code)) == (0, "closed True\n", "")


@pytest.mark.parametrize("seconds", [0.5, 3])
def test_the_end_while_an_installer_is_at_work(program, seconds):
    code = f"""
sys.path.insert(0, {str(ROOT / "python/tests")!r})
from test_installer import InMemory
class Slow(InMemory):
    def finish(self):
        began.set()
        time.sleep({seconds})
began = threading.Event()
updater.close()
updater = twinflash.Updater(state_dir=directory + "/state", install=Slow(), policy=policy)
conftest.serve(updater)
conftest.ask(updater, server.url("image"))
assert began.wait(20)
print("end")
"""
    assert ended(program(code)) == (0, "end\n", "")


def test_an_exception_ends_the_program_as_ever(program):
    status, _, error = ended(program("downloading()\nraise RuntimeError('the application')"))
    assert status == 1 and error.endswith("RuntimeError: the application\n")


def test_a_fork_is_noticed(program):
    code = """
downloading()
events = updater.events()
device = twinflash.Device("HostName=127.0.0.1;DeviceId=d;SharedAccessKey=a2V5", updater)
child = os.fork()
if child == 0:
    calls = [updater.status, updater.wait, updater.close, updater.cancel, updater.next_outbound, events.next, device.close,
             lambda: updater.handle_method("firmwareUpdate", {}), lambda: updater.closed]
    for call in calls:
        try:
            call()
            os._exit(3)
        except twinflash.StateError as error:
            assert "fork" in str(error) and str(os.getppid()) in str(error), error
    assert repr(updater) == "<twinflash.Updater of another process>"
    # What was inherited is left alone; one of its own works.
    del updater, events, device, calls, call
    with twinflash.Updater(state_dir=directory + "/own", install=twinflash.FileInstall(directory + "/own.bin")) as own:
        assert own.status().phase is None
    print("child", flush=True)
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert updater.status().phase is twinflash.Phase.DOWNLOADING, "the parent's goes on"
server.go.set()
conftest.eventually(lambda: updater.status().phase is None or updater.status().phase is twinflash.Phase.CONFIRMING, "it goes on")
print("parent", flush=True)
"""
    assert ended(program(code), 30) == (0, "child\nparent\n", "")


def test_multiprocessing_spawns(program):
    code = """
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(conftest.in_a_process, (directory + "/spawned",)))
"""
    assert ended(program(code), 30) == (0, "1.0.0\n", "")


def test_a_restart_by_exit_ends_the_process_with_status_0(program, tmp_path):
    code = f"""
updater.close()
install = twinflash.FileInstall({str(tmp_path / "app.bin")!r}, restart="exit")
updater = twinflash.Updater(state_dir={str(tmp_path / "state")!r}, install=install, policy=policy)
conftest.serve(updater)
sys.stdout.write("kept")
assert conftest.ask(updater, server.url("image")).status == 200
time.sleep(30)
"""
    assert ended(program(code)) == (0, "kept", "")
    assert (tmp_path / "app.bin").stat().st_size == 1 << 20


def test_an_update_goes_on_where_a_killed_process_left_it(program, make, server, tmp_path):
    code = f"""
updater.close()
updater = twinflash.Updater(state_dir={str(tmp_path / "state")!r}, install=twinflash.FileInstall({str(tmp_path / "app.bin")!r}),
                            current_version="1.0.0", policy=policy)
conftest.serve(updater)
assert conftest.ask(updater, {server.url("slow")!r}).status == 200
conftest.eventually(lambda: updater.status().bytes, "bytes")
print("downloading", flush=True)
time.sleep(60)
"""
    process = program(code)
    assert process.stdout.readline() == "downloading\n"
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL
    server.go.set()
    updater = make()
    assert updater.status().phase is not None
    serve(updater)
    assert updater.wait(20).is_success
    assert ask(updater, server.url("image")).status == 200, "the next one can start"
