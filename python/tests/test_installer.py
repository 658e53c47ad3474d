"""An installer of the application's own, in Python."""

import errno

import pytest

import twinflash
from conftest import IMAGE, ask, eventually, serve


class InMemory:
    """The plainest that does all: the image is this object's."""

    restart = "none"

    def __init__(self):
        self.calls = []
        self.old, self.new, self.active = b"old", bytearray(), "old"

    def inspect(self):
        self.calls.append("inspect")
        return "partial" if self.active == "old" and self.new else self.active

    def begin(self, image, resume_at):
        self.calls.append("begin")
        self.image = image
        if self.active == "new":
            # From here on the new one is that which comes.
            self.old, self.new, self.active = bytes(self.new), bytearray(), "old"
            resume_at = 0
        del self.new[resume_at:]
        return resume_at

    def write(self, offset, data):
        assert offset == len(self.new) and isinstance(data, bytes)
        self.new += data

    def sync(self):
        return len(self.new)

    def finish(self):
        self.calls.append("finish")

    def activate(self):
        self.calls.append("activate")
        self.active = "new"

    def confirm(self):
        self.calls.append("confirm")

    def rollback(self):
        self.calls.append("rollback")
        self.active = "old"

    def abort(self):
        self.calls.append("abort")
        self.new.clear()


def run(make, server, installer):
    updater = make(install=installer)
    serve(updater)
    answer = ask(updater, server.url("image"))
    assert answer.status == 200
    return updater, updater.wait(20)


def test_it_installs(make, server):
    installer = InMemory()
    assert isinstance(installer, twinflash.Installer)
    _, outcome = run(make, server, installer)
    assert outcome.is_success
    assert bytes(installer.new) == IMAGE
    assert installer.image == twinflash.Image(len(IMAGE), None)
    assert installer.calls == ["inspect", "begin", "finish", "activate", "confirm"]
    assert installer.inspect() == "new", "also once it is confirmed"


def test_which_image_is_the_new_one_from_update_to_update(make, server):
    """It is asked at a start in the middle of the second update: what runs is the old one then, and the half one is gone on with."""
    installer = InMemory()
    updater, outcome = run(make, server, installer)
    assert outcome.is_success
    assert ask(updater, server.url("slow")).status == 200
    eventually(lambda: installer.old == IMAGE and installer.new, "bytes of the second")
    updater.close()
    assert (installer.inspect(), installer.old) == ("partial", IMAGE)
    server.go.set()
    updater = make(install=installer)
    serve(updater)
    assert updater.wait(20).is_success
    assert (installer.inspect(), bytes(installer.new)) == ("new", IMAGE)
    assert installer.calls.count("finish") == installer.calls.count("confirm") == 2


@pytest.mark.parametrize(
    ("step", "raised", "code", "text"),
    [
        ("write", OSError(errno.ENOSPC, "full"), "no-space", "full"),
        ("begin", PermissionError(errno.EACCES, "not mine"), "no-permission", "not mine"),
        ("sync", OSError(errno.EIO, "broken"), "storage", "broken"),
        ("finish", KeyError("a mistake"), "install-failed", "a mistake"),
        ("activate", twinflash.TwinflashError("the slot is worn out", code="storage"), "storage", "the slot is worn out"),
        ("finish", twinflash.TwinflashError("odd", code="of-the-future"), "install-failed", "odd"),
    ],
)
def test_what_it_raises_is_the_failure(make, server, step, raised, code, text):
    installer = InMemory()

    def fail(*arguments):
        raise raised

    setattr(installer, step, fail)
    updater, outcome = run(make, server, installer)
    assert (outcome.kind, outcome.failure.code) == ("failed", code)
    assert text in outcome.failure.message
    assert outcome == updater.status().outcome
    with pytest.raises(twinflash.TwinflashError) as caught:
        outcome.raise_for_failure()
    assert caught.value.__cause__ is raised
    if not isinstance(raised, twinflash.TwinflashError):
        assert f"the installer's {step}" in outcome.failure.message


@pytest.mark.parametrize(("step", "value"), [("begin", 7), ("begin", "0"), ("sync", None), ("sync", -1)])
def test_a_wrong_result_is_a_failure(make, server, step, value):
    installer = InMemory()
    setattr(installer, step, lambda *arguments: value)
    _, outcome = run(make, server, installer)
    assert (outcome.kind, outcome.failure.code) == ("failed", "install-failed")


def test_it_may_call_all_but_what_waits_for_itself(make, server):
    installer = InMemory()
    refused = []

    def finish():
        installer.phase = updater.status().phase
        updater.confirm()
        for call in (updater.wait, updater.close, updater.next_outbound, lambda: updater.handle_method("firmwareUpdate", {})):
            with pytest.raises(twinflash.StateError, match="thread") as caught:
                call()
            refused.append(caught.value.code)

    installer.finish = finish
    updater = make(install=installer)
    serve(updater)
    ask(updater, server.url("image"))
    assert updater.wait(20).is_success
    assert refused == ["state"] * 4
    assert isinstance(installer.phase, twinflash.Phase)


def test_what_a_command_printed_is_logged(make, server, caplog):
    caplog.set_level("DEBUG", "twinflash")
    command = ["sh", "-c", "echo began; echo 'the slot is worn out' >&2; exit 3"]
    failing, outcome = run(make, server, twinflash.CommandInstall(command))
    assert (outcome.failure.code, outcome.failure.message) == ("install-failed", "sh ended with exit status: 3")

    def logged():
        return [(record.name, record.levelname, record.getMessage()) for record in caplog.records]

    eventually(lambda: ("twinflash", "WARNING", "sh errors: the slot is worn out") in logged(), "what it printed")
    assert ("twinflash", "WARNING", "sh output: began") in logged()
    failing.close()
    _, outcome = run(make, server, twinflash.CommandInstall(["sh", "-c", "echo installed"]))
    assert outcome.is_success
    eventually(lambda: ("twinflash.command", "DEBUG", "sh output: installed") in logged(), "what the other printed")


def test_a_restart_is_the_applications(make, server, tmp_path):
    asked = []
    updater = make(install=twinflash.FileInstall(tmp_path / "app.bin", restart=["restart", "it"]), on_restart=asked.append)
    serve(updater)
    ask(updater, server.url("image"))
    updater.wait(20)
    assert asked[0] == ["restart", "it"]


def test_an_installer_without_a_method_is_refused(make):
    class Half:
        def inspect(self):
            return "old"

    with pytest.raises(TypeError, match="Half lacks begin, write"):
        make(install=Half())

    class Forgetful(twinflash.Installer):
        def inspect(self):
            return "old"

    with pytest.raises(TypeError, match="Forgetful.*abort"):
        Forgetful()

    class Awaited(InMemory):
        async def write(self, offset, data):
            pass

    with pytest.raises(TypeError, match="install.write must be a plain function"):
        make(install=Awaited())
    installer = InMemory()
    installer.restart = ["a", "command"]
    with pytest.raises(ValueError, match="install.restart"):
        make(install=installer)
