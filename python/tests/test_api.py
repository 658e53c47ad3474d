"""The updater as an application uses it."""

import ast
import asyncio
import dataclasses
import datetime
import doctest
import hashlib
import importlib.metadata
import logging
import pathlib
import pickle
import re
import subprocess
import sys
import threading
import time

import pytest

import twinflash
from conftest import IMAGE, ROOT, ask, eventually, serve
from twinflash import _errors, _events, _native, _updater


def test_what_is_tested_is_what_is_installed():
    assert "site-packages" in pathlib.Path(twinflash.__file__).parts
    assert (pathlib.Path(twinflash.__file__).parent / "py.typed").exists()
    assert twinflash.__version__ == _native.__version__


@pytest.mark.parametrize("module", [_updater, _errors, _events], ids=lambda module: module.__name__)
def test_documented_examples(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_every_failure_code_has_its_class():
    assert list(_errors.CLASSES) == list(_native.CODES), "the core's table, in its order"
    for code, of in _errors.CLASSES.items():
        error = _errors.error_of(code, "what failed")
        assert type(error) is of and isinstance(error, twinflash.TwinflashError)
        assert (error.code, error.message, str(error)) == (code, "what failed", "what failed")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.code, again.message) == (of, code, "what failed")
    exported = {of for of in vars(twinflash).values() if isinstance(of, type) and issubclass(of, twinflash.TwinflashError)}
    assert exported == {twinflash.TwinflashError, *_errors.CLASSES.values()}


def test_the_readme_is_python_that_the_package_has():
    text = (ROOT / "python/README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) > 4
    for block in blocks:
        if sys.version_info >= (3, 10):
            compile(block.replace("    …", "    ..."), "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for name in re.findall(r"twinflash\.(\w+)", block):
            assert hasattr(twinflash, name), name


def test_values_are_dataclasses_that_print_and_compare():
    for made in (twinflash.Disconnected("why", 1.5), twinflash.Policy(max_size=3), twinflash.Answer(200, {"a": 1}), twinflash.ReadTwin()):
        of = type(made)
        same = dataclasses.make_dataclass(of.__name__, [(f.name, f.type) for f in dataclasses.fields(made)], frozen=True)
        given = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}
        assert repr(made) == repr(same(**given)) and made == of(**given) and not made == same(**given)
        if of is not twinflash.Answer:
            assert hash(made) == hash(of(**given)) and len({made, of(**given)}) == 1
        with pytest.raises(dataclasses.FrozenInstanceError):
            made.other = 1
    assert twinflash.Connected("x") != twinflash.HubRefused("x")


def test_everything_public_says_what_it_is():
    for name in twinflash.__all__:
        of = getattr(twinflash, name)
        if not isinstance(of, type) or of.__module__ == "typing":
            continue
        assert of.__doc__, name
        for member, what in vars(of).items():
            if callable(what) and not member.startswith("_"):
                assert what.__doc__, f"{name}.{member}"


def test_the_command_that_can_come_with_it_is_of_this_version():
    wanted = importlib.metadata.requires("twinflash")
    assert any(line.startswith(f"twinflash-cli~={twinflash.__version__}") for line in wanted), wanted


FILE = twinflash.FileInstall("app.bin")


@pytest.mark.parametrize(
    ("given", "error", "named"),
    [
        ({"state_dir": 3}, TypeError, "state_dir"),
        ({"state_dir": b"bytes"}, TypeError, "state_dir"),
        ({"state_dir": ""}, ValueError, "state_dir"),
        ({"state_dir": "\udcff"}, ValueError, "UTF-8"),
        ({"contract": 3}, TypeError, "contract"),
        ({"contract": "no-such"}, ValueError, "no-such"),
        ({"contract": pathlib.Path("no-such")}, ValueError, "no-such"),
        ({"contract": {"contract": 3}}, ValueError, "contract"),
        ({"contract": {"contract": {3}}}, TypeError, "contract is not JSON"),
        ({"current_version": 1.0}, TypeError, "current_version"),
        ({"version_from": "file"}, TypeError, "version_from"),
        ({"version_from": {"file": pathlib.Path("none")}, "current_version": None}, ValueError, "version_from"),
        ({"install": None}, TypeError, "install"),
        ({"install": "app.bin"}, TypeError, "install"),
        ({"install": twinflash.FileInstall(3)}, TypeError, "install.path"),
        ({"install": twinflash.FileInstall("a", restart="never")}, ValueError, "install.restart"),
        ({"install": twinflash.FileInstall("a", restart=3)}, TypeError, "install.restart"),
        ({"install": twinflash.CommandInstall("rauc install")}, TypeError, "install.command"),
        ({"install": twinflash.CommandInstall([])}, ValueError, "install"),
        ({"install": twinflash.CommandInstall(["a", 3])}, TypeError, "install.command"),
        ({"install": twinflash.SlotsInstall({"a": "a"}, {"link": "l"})}, ValueError, "install.slots"),
        ({"install": twinflash.SlotsInstall({"a": "a", "b": 3}, {"link": "l"})}, TypeError, "install.slots['b']"),
        ({"policy": {"allow_http": True}}, TypeError, "policy"),
        ({"policy": twinflash.Policy(allow_http=1)}, TypeError, "policy.allow_http"),
        ({"policy": twinflash.Policy(max_size=True)}, TypeError, "policy.max_size"),
        ({"policy": twinflash.Policy(max_size=-1)}, ValueError, "policy.max_size"),
        ({"policy": twinflash.Policy(retry_time="1h")}, TypeError, "policy.retry_time"),
        ({"policy": twinflash.Policy(retry_time=float("nan"))}, ValueError, "policy.retry_time"),
        ({"policy": twinflash.Policy(retry_time=1e12)}, ValueError, "policy.retry_time"),
        ({"policy": twinflash.Policy(confirm="perhaps")}, ValueError, "policy.confirm"),
        ({"policy": twinflash.Policy(consent="apply")}, TypeError, "policy.consent"),
        ({"policy": twinflash.Policy(consent=["lunch"])}, ValueError, "policy.consent"),
        ({"policy": twinflash.Policy(apply_windows={"from": "1:00"})}, TypeError, "policy.apply_windows"),
        ({"policy": twinflash.Policy(apply_windows=[3])}, TypeError, "policy.apply_windows[0]"),
        ({"policy": twinflash.Policy(apply_windows=[{"from": "late", "to": "later"}])}, ValueError, "policy.apply_windows[0]"),
        ({"policy": twinflash.Policy(bandwidth=1)}, ValueError, "policy.bandwidth"),
        ({"policy": twinflash.Policy(progress_step=999)}, ValueError, "policy.progress_step"),
        ({"http": twinflash.Http(proxy=3)}, TypeError, "http.proxy"),
        ({"http": twinflash.Http(ca="no-such.pem")}, ValueError, "no-such.pem"),
        ({"trust": "key.pem"}, TypeError, "trust"),
        ({"trust": twinflash.Trust("key.pem")}, TypeError, "trust.keys"),
        ({"trust": twinflash.Trust(["no-such.pem"])}, ValueError, "no-such.pem"),
        ({"trust": twinflash.Trust(["-----BEGIN nonsense"])}, ValueError, "trust.keys"),
        ({"on_event": 3}, TypeError, "on_event"),
        ({"on_restart": "exit"}, TypeError, "on_restart"),
        ({"on_event": asyncio.sleep}, TypeError, "on_event must be a plain function"),
        ({"retries": 3}, TypeError, "retries"),
    ],
)
def test_wrong_arguments_are_named(make, given, error, named):
    with pytest.raises(error) as caught:
        make(**given)
    assert named in str(caught.value)


def test_every_key_of_the_configuration_is_known(make, tmp_path):
    """What the classes make of their members is what the core reads: it refuses a key it does not know."""
    policy = twinflash.Policy(
        allow_http=True, max_size=1 << 30, require_check=False, retry_first=0.1, retry_longest=datetime.timedelta(minutes=1),
        retry_time=3600, retry_sizes=3, checkpoint_interval=1, checkpoint_bytes=1 << 20, stall_time=30, stall_bytes=1024,
        max_redirects=3, progress_step=10, progress_interval=30, answer_wait=0.5, apply_attempts=2, confirm=["true"],
        confirm_attempts=3, confirm_time=60, require_manifest=False, floor="0.9.0", version="higher", consent=["download", "apply"], consent_by="local",
        consent_command=["true", "{stage}"], consent_interval=datetime.timedelta(hours=1), ready=["true"], ready_interval=60,
        start_delay=5, bandwidth=1 << 20, dry_run=False, download_windows=[{"from": "22:00", "to": "04:30", "days": ["sat"]}],
        apply_windows=[{"from": "00:00", "to": "24:00", "zone": "UTC"}],
    )  # fmt: skip
    assert None not in dataclasses.astuple(policy)
    pair = [tmp_path / "device.pem", tmp_path / "device.key"]
    make_pair = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=d", "-out", pair[0], "-keyout", pair[1]]
    subprocess.run(make_pair, check=True, capture_output=True)
    http = twinflash.Http("system", "none", "test/1", 5, ["a.example", "*.b.example"], pair[0], pair[1], {"X-Key": "S3CR3T"})
    assert "S3CR3T" not in repr(http)
    assert None not in dataclasses.astuple(http)
    pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n"
    (tmp_path / "key.pem").write_text(pem)
    identity = tmp_path / "identity.txt"
    identity.write_text("AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0\n")
    identity.chmod(0o600)
    trust = twinflash.Trust([tmp_path / "key.pem"], 1, 1, ["ab" * 32], "maker", "model", "a", identity)
    assert None not in dataclasses.astuple(trust)
    make(policy=policy, http=http, trust=trust).close()
    seconds = datetime.timedelta(seconds=9)
    command = twinflash.CommandInstall(["true", "{image}"], ["true"], ["true"], ["true"], 9, seconds, "none")
    make(install=command).close()
    make(install=twinflash.FileInstall(tmp_path / "app.bin", verify="read-back")).close()
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "link").symlink_to("a")
    slots = twinflash.SlotsInstall(
        {"a": tmp_path / "a", "b": tmp_path / "b"}, {"link": tmp_path / "link"}, {"link": tmp_path / "link"}, "read-back", 9,
        ["true"],
    )  # fmt: skip
    make(install=slots).close()
    (tmp_path / "version").write_text("2.0.0\n")
    updater = make(current_version=None, version_from={"file": tmp_path / "version"}, contract=ROOT / "core/contracts/devkit.json")
    assert updater.status().running_version == "2.0.0"


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda it: it.handle_method(3), TypeError, "name"),
        (lambda it: it.handle_method("firmwareUpdate", {3}), TypeError, "payload"),
        (lambda it: it.handle_twin("{}", complete=True), TypeError, "twin"),
        (lambda it: it.handle_twin({}, complete="yes"), TypeError, "complete"),
        (lambda it: it.connected("yes"), TypeError, "connected"),
        (lambda it: it.report_done("1", 204), TypeError, "id"),
        (lambda it: it.report_done(-1, 204), ValueError, "id"),
        (lambda it: it.report_done(1, "204"), TypeError, "status"),
        (lambda it: it.report_done(1, 600), ValueError, "status"),
        (lambda it: it.wait("1"), TypeError, "timeout"),
        (lambda it: it.defer(-1), ValueError, "seconds"),
        (lambda it: it.install_file(3), TypeError, "path"),
    ],
)
def test_a_wrong_argument_of_a_call_is_named(make, call, error, named):
    with pytest.raises(error, match=f"^{named} "):
        call(make())


def test_an_update_and_what_is_heard_of_it(make, server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "twinflash")
    heard = []
    updater = make(on_event=heard.append)
    events = updater.events()
    sent = serve(updater)
    answer = ask(updater, server.url("image"))
    assert answer == twinflash.Answer(200, "FirmwareUpdate started.")
    outcome = updater.wait(20)
    assert outcome == twinflash.Outcome("completed") and outcome.is_success and str(outcome) == "completed"
    outcome.raise_for_failure()
    assert (tmp_path / "app.bin").read_bytes() == IMAGE
    assert sent[-1]["iothubDM"]["firmwareUpdate"]["status"] == "applyComplete"
    status = updater.status()
    assert (status.phase, status.outcome, status.paused, status.retry) == (None, outcome, False, None)
    updater.close()

    seen = list(events)
    assert seen == heard, "callback and iterator get the same"
    assert seen[0] == twinflash.Accepted(server.url("image"), None)
    phases = [event.phase for event in seen if isinstance(event, twinflash.PhaseChanged)]
    assert phases[0] is twinflash.Phase.WAITING or phases[0] is twinflash.Phase.DOWNLOADING
    assert phases[-1] in (twinflash.Phase.APPLYING, twinflash.Phase.CONFIRMING)
    (verified,) = [event for event in seen if isinstance(event, twinflash.Verified)]
    assert verified == twinflash.Verified("checks", len(IMAGE), hashlib.sha256(IMAGE).hexdigest())
    assert seen[-1] == twinflash.Ended(outcome)
    logged = [(record.name, record.getMessage()) for record in caplog.records]
    assert [("twinflash", str(event)) for event in seen] == logged
    with pytest.raises(dataclasses.FrozenInstanceError):
        verified.bytes = 3


def test_events_are_matched():
    code = """if True:
        from twinflash import Ended, Failure, Outcome, Phase, PhaseChanged
        match Ended(Outcome("failed", Failure("http-status", "404"), Phase.DOWNLOADING)):
            case Ended(Outcome(kind="failed", failure=Failure(code=code))):
                print(code)
        match PhaseChanged(Phase.APPLYING):
            case PhaseChanged(Phase.APPLYING):
                print("applying")
    """
    if sys.version_info < (3, 10):
        pytest.skip("match came with Python 3.10")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "http-status\napplying\n"


def test_a_failure_says_what_can_be_done(make, server, tmp_path):
    updater = make()
    serve(updater)
    assert ask(updater, server.url("none")).status == 200
    outcome = updater.wait(20)
    assert (outcome.kind, outcome.phase) == ("failed", twinflash.Phase.DOWNLOADING)
    assert "404" in str(outcome) and "while downloading" in str(outcome)
    with pytest.raises(twinflash.TransferError) as caught:
        outcome.raise_for_failure()
    assert caught.value.code == "http-status"
    assert not (tmp_path / "app.bin").exists()


def test_unsigned_is_refused_where_keys_are_trusted(make, server, tmp_path):
    pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n"
    updater = make(trust=twinflash.Trust([pem]))
    serve(updater)
    assert ask(updater, server.url("image")).status == 200, "a manifest may lie beside the image"
    with pytest.raises(twinflash.TrustError) as caught:
        updater.wait(20).raise_for_failure()
    assert caught.value.code == "manifest-required"
    assert not (tmp_path / "app.bin").exists()


def test_methods_and_payloads(make):
    updater = make()
    assert updater.handle_method("reboot", {}) is None
    assert updater.handle_method("firmwareUpdate", {"fwPackageUri": "test.com"}).status == 400
    assert updater.handle_method("firmwareUpdate", b'{"fwPackageUri":"test.com"}').status == 400
    assert updater.handle_method("firmwareUpdate").status == 400
    with pytest.raises(TypeError, match="payload"):
        updater.handle_method("firmwareUpdate", object())
    with pytest.raises(ValueError, match="payload"):
        updater.handle_method("firmwareUpdate", {"a": float("nan")})
    with pytest.raises(TypeError, match="name"):
        updater.handle_method(3, {})
    with pytest.raises(TypeError, match="twin"):
        updater.handle_twin(object(), complete=True)
    with pytest.raises(ValueError, match="status is 999"):
        updater.report_done(1, 999)
    for wrong, error in [("1", TypeError), (True, TypeError), (-1, ValueError), (float("nan"), ValueError)]:
        for call in (updater.wait, updater.next_outbound, updater.events().next):
            with pytest.raises(error, match="timeout"):
                call(wrong)


def test_a_desired_update_and_its_cancelling(make, server, tmp_path):
    updater = make(contract="configuration")
    desired = {"fwVersion": "2.0.0", "fwPackageURI": server.url("slow"), "fwPackageCheckValue": "0000", "fwSize": len(IMAGE)}
    assert updater.next_outbound(0) in (None, twinflash.ReadTwin())
    updater.connected()
    eventually(lambda: updater.next_outbound(1) == twinflash.ReadTwin(), "the twin is asked for")
    updater.handle_twin({"desired": {"firmware": desired, "$version": 2}, "reported": {"$version": 1}}, complete=True)
    report = eventually(lambda: updater.next_outbound(1), "a report")
    assert isinstance(report, twinflash.Report) and "firmware" in report.patch
    eventually(lambda: updater.status().phase is twinflash.Phase.DOWNLOADING, "downloading")
    updater.pause()
    assert updater.status().paused
    updater.resume()
    assert not updater.status().paused
    assert updater.cancel() is True
    assert updater.wait(0.3).kind == "cancelled", "it is told even where the hub was not"
    assert updater.cancel() is False
    assert not (tmp_path / "app.bin").exists()


def test_the_user_agrees_or_puts_it_off(make, server, tmp_path):
    updater = make(policy=twinflash.Policy(allow_http=True, answer_wait=0, confirm="none", consent=["apply"]))
    events = updater.events()
    serve(updater)
    assert updater.approve() is False and updater.defer(1) is False
    assert ask(updater, server.url("image")).status == 200
    waiting = eventually(lambda: updater.status().waiting, "it waits")
    assert (waiting.on, waiting.before, str(waiting)) == ("consent", "apply", "waiting for consent before apply")
    assert updater.defer(datetime.timedelta(hours=1)) is True
    assert eventually(lambda: updater.status().waiting.on == "deferral", "it is put off")
    assert 3500 < updater.status().waiting.after <= 3600
    assert updater.defer(0) is True
    eventually(lambda: updater.status().waiting.on == "consent", "it asks again")
    assert updater.approve() is True
    assert updater.wait(20).is_success and (tmp_path / "app.bin").read_bytes() == IMAGE
    updater.close()
    assert [event.on for event in events if isinstance(event, twinflash.Waiting)][:2] == ["consent", "deferral"]


def test_an_image_from_a_file_of_the_device(make, tmp_path):
    updater = make(policy=twinflash.Policy(confirm="none"))
    serve(updater)
    (tmp_path / "usb.bin").write_bytes(IMAGE)
    updater.install_file(tmp_path / "usb.bin", version="2.0.0", check=hashlib.sha256(IMAGE).hexdigest())
    assert updater.wait(20).is_success
    assert (tmp_path / "app.bin").read_bytes() == IMAGE and updater.status().running_version == "2.0.0"
    with pytest.raises(TypeError, match="path"):
        updater.install_file(3)
    with pytest.raises(TypeError, match="version"):
        updater.install_file(tmp_path / "usb.bin", version=2)


def test_waiting_in_slices_waits_for_the_hub_to_be_told(make, server):
    updater = make(policy=twinflash.Policy(allow_http=True, answer_wait=0, confirm="none"))
    updater.connected()
    updater.handle_twin({"desired": {"$version": 1}, "reported": {"$version": 1}}, complete=True)
    assert ask(updater, server.url("image")).status == 200
    eventually(lambda: updater.status().outcome, "the end")
    assert updater.wait(0.35).kind == "completed", "after the time has passed"
    telling = threading.Event()

    def tell():
        telling.set()
        serve(updater)

    later = threading.Timer(0.25, tell)
    later.start()
    assert updater.wait(20).kind == "completed"
    assert telling.is_set(), "not before the hub was told"
    later.join()


def test_a_callback_may_call_everything(make, server):
    done = threading.Event()
    results = []

    def on_event(event):
        if isinstance(event, twinflash.Accepted):
            results.append(updater.handle_method("firmwareUpdate", {"fwPackageUri": "test.com"}).status)
            results.append(updater.wait(20).kind)
            updater.close()
            done.set()
        elif isinstance(event, twinflash.Refused):
            raise RuntimeError("an application's mistake stays its own")

    updater = make(on_event=on_event)
    serve(updater)
    ask(updater, server.url("image"))
    assert done.wait(25)
    assert results == [400, "completed"] and updater.closed


def test_events_in_asyncio(make, server):
    updater = make()
    serve(updater)

    async def main():
        events = updater.events()
        answer = await asyncio.to_thread(ask, updater, server.url("image"))
        assert answer.status == 200
        seen = []
        async for event in events:
            seen.append(event)
            if isinstance(event, twinflash.Ended):
                break
        assert seen[0] == twinflash.Accepted(server.url("image"), None) and seen[-1].outcome.is_success
        # A wait for an event that does not come is cancelled like any other, and ends with the updater.
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(events.__anext__(), 0.05)
        asyncio.get_running_loop().call_later(0.1, updater.close)
        assert [event async for event in events] == []
        return events

    events = asyncio.run(main())
    with pytest.raises(twinflash.StateError, match="another event loop"):
        asyncio.run(events.__anext__())
    names = [thread.name for thread in threading.enumerate()]
    eventually(lambda: "twinflash events" not in [thread.name for thread in threading.enumerate()], f"threads end: {names}")


def test_one_directory_has_one_updater(make):
    first = make()
    with pytest.raises(twinflash.LockedError) as caught:
        make()
    assert caught.value.code == "locked" and isinstance(caught.value, RuntimeError)
    first.close()
    make()


def test_closed(make):
    with make() as updater:
        threading.Timer(0.1, updater.close).start()
        assert updater.wait() is None
        assert updater.next_outbound() is None
        assert list(updater.events()) == [] and list(updater.reports()) == []
    assert updater.closed and repr(updater) == "<twinflash.Updater closed>"
    updater.close()
    updater.connected()
    assert updater.handle_method("firmwareUpdate", {}).status == 503
    with pytest.raises(twinflash.StateError, match="closed"):
        updater.cancel()


def test_agreed_to_put_off_and_brought_in_a_file(make, server, tmp_path):
    updater = make(policy=twinflash.Policy(allow_http=True, consent=["download"]))
    events = updater.events()
    serve(updater)
    assert not updater.approve() and not updater.defer(1)
    ask(updater, server.url("image"))
    waiting = next(event for event in events if isinstance(event, twinflash.Waiting))
    assert (waiting.on, waiting.before, waiting.after) == ("consent", "download", None)
    assert updater.status().waiting == waiting
    assert updater.defer(datetime.timedelta(hours=1))
    assert updater.status().waiting.on == "deferral"
    with pytest.raises(twinflash.BusyError):
        updater.install_file(__file__)
    assert updater.approve()
    assert updater.wait(20).kind == "completed"
    with pytest.raises(twinflash.TwinflashError, match="nothing.bin"):
        updater.install_file(tmp_path / "nothing.bin")
    stick = tmp_path / "stick.bin"
    stick.write_bytes(b"from a stick" * 1000)
    updater.install_file(stick, version="9.0.0")
    assert updater.wait(20).kind == "completed"
    assert updater.status().version == "9.0.0"


def test_others_run_while_one_waits(make):
    updater = make()
    turns = []

    def count():
        while not turns or turns[-1] < 1000:
            turns.append(len(turns))
            time.sleep(0)

    thread = threading.Thread(target=count)
    thread.start()
    assert updater.wait(0.5) is None
    thread.join(20)
    assert turns[-1] == 1000
