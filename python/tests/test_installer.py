"""An installer of the application's own, in Python."""

import errno

import pytest

import twinflash
from conftest import IMAGE, ask, serve


class InMemory:
    """The plainest that does all: the image is this object's."""

    restart = "none"

    def __init__(self):
        self.calls = []
        self.old, self.new, self.active = b"old", bytearray(), "old"

    def inspect(self):
        self.calls.append("inspect")
        return self.active

    def begin(self, image, resume_at):
        self.calls.append("begin")
        self.image = image
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
    installer = InMemory()
    installer.restart = ["a", "command"]
    with pytest.raises(ValueError, match="install.restart"):
        make(install=installer)
