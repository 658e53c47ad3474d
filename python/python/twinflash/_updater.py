"""The updater."""

from __future__ import annotations

import atexit
import errno
import json
import os
import sys
import threading
import weakref
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Iterator, Mapping, Optional, Type, Union

from . import _config, _native
from ._config import CommandInstall, FileInstall, Http, Image, Installer, Path, Policy, Seconds, SlotsInstall, Trust
from ._errors import StateError, Thrown, TwinflashError
from ._events import CauseOf, Event, Outcome, Status, event_of, level_of, outcome_of, status_of
from ._log import listen, logger
from ._value import Value

if TYPE_CHECKING:
    import asyncio
    import logging


@dataclass(frozen=True, repr=False, eq=False)
class Answer(Value):
    """The answer to a direct method: the status for the back end, and what goes with it, as ``json.loads`` gives it."""

    status: int
    payload: Any


@dataclass(frozen=True, repr=False, eq=False)
class Report(Value):
    """To be sent as a patch of the reported properties; then :meth:`Updater.report_done` is to be called with the id."""

    id: int
    patch: "dict[str, Any]"


@dataclass(frozen=True, repr=False, eq=False)
class ReadTwin(Value):
    """The whole twin is to be read, and given to :meth:`Updater.handle_twin` with ``complete=True``."""


Outbound = Union[Report, ReadTwin]


class Events:
    """Everything that happens from now on: to be read by ``for``, which waits for the next one and ends when the updater is
    closed, or by ``async for``; from one thread or task, and one event loop. Who is more than 1000 events behind misses some."""

    def __init__(self, reader: _native.Reader, cause_of: CauseOf) -> None:
        self._reader, self._cause_of = reader, cause_of
        self._queue: "Optional[asyncio.Queue[Optional[Event]]]" = None
        self._loop: "Optional[asyncio.AbstractEventLoop]" = None

    def next(self, timeout: Optional[Seconds] = None) -> Optional[Event]:
        """The next event; ``None`` where there was none in time, or the updater is closed."""
        raw = self._reader.next(_timeout(timeout))
        return event_of(raw, self._cause_of) if raw else None

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        raw = self._reader.next(None)
        if not raw:
            raise StopIteration
        return event_of(raw, self._cause_of)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        # Here: it would be much of the time it takes to import twinflash, for those who do not use it.
        import asyncio

        loop = asyncio.get_running_loop()
        if self._queue is None:
            self._queue, self._loop = asyncio.Queue(), loop
            bring = (weakref.ref(self), self._reader, self._cause_of, loop, self._queue)
            # Not the loop's own executor: asyncio.run would wait for its threads at the end.
            threading.Thread(target=_bring, args=bring, name="twinflash events", daemon=True).start()
        if loop is not self._loop:
            raise StateError("these events are brought to another event loop: ask for others by updater.events()")
        event = await self._queue.get()
        if event is None:
            self._queue.put_nowait(None)
            raise StopAsyncIteration
        return event


def _bring(
    owner: "weakref.ref[Events]",
    reader: _native.Reader,
    cause_of: CauseOf,
    loop: asyncio.AbstractEventLoop,
    queue: "asyncio.Queue[Optional[Event]]",
) -> None:
    """Brings events to a loop, until they end, or nobody is there any more."""
    while owner() is not None and not loop.is_closed():
        raw = reader.next(0.5)
        if raw is None:
            continue
        try:
            loop.call_soon_threadsafe(queue.put_nowait, event_of(raw, cause_of) if raw else None)
        except RuntimeError:  # The loop was closed.
            return
        if not raw:
            return


class Updater:
    """Firmware updates for one device, without a connection of its own: methods, twins and results come in by ``handle_…``,
    reports go out by :meth:`reports`. :func:`twinflash.attach` does that for a client of azure-iot-device, and
    :class:`twinflash.Device` connects by itself.

    Every call may be made from any thread. It is a context manager, and closed when the program ends.

    >>> import tempfile
    >>> directory = tempfile.TemporaryDirectory()
    >>> updater = Updater(state_dir=directory.name + "/state", contract="iothub-dm", current_version="1.0.0",
    ...                   install=FileInstall(directory.name + "/app.bin"))

    A method that cannot be done is refused, with a reason; one of the application's is left to the application.

    >>> updater.handle_method("firmwareUpdate", {"fwPackageUri": "test.com"}).status
    400
    >>> updater.handle_method("reboot", {}) is None
    True
    >>> updater.close(); directory.cleanup()
    """

    def __init__(
        self,
        *,
        state_dir: Path,
        install: Union[FileInstall, SlotsInstall, CommandInstall, Installer],
        contract: Union[Path, Mapping[str, Any]] = "iothub-dm",
        current_version: Optional[str] = None,
        version_from: Optional[Mapping[str, Any]] = None,
        policy: Optional[Policy] = None,
        trust: Optional[Trust] = None,
        http: Optional[Http] = None,
        on_event: Optional[Callable[[Event], object]] = None,
        on_restart: Optional[Callable[[Union[str, "list[str]"]], object]] = None,
    ) -> None:
        """Takes the state directory, reads what is in it and goes on with it.

        ``contract`` is a built-in contract's name, a contract's file, or a contract as a dict. ``current_version`` is the running
        program's own, where that is what is updated; else ``version_from`` may name what tells it (``{"file": …}`` or
        ``{"command": […]}``).

        ``on_event`` is called with each event, in order, on a thread of the updater's; it may call everything. ``on_restart`` is
        called in place of the restart the installer asks for, with ``"exit"``, ``"system"`` or a command; it may call neither
        ``handle_method`` nor ``wait`` nor ``close``.

        Raises ``TypeError`` or ``ValueError`` where an argument is wrong (:class:`ConfigError` is one), :class:`LockedError`
        where another process has the state directory, :class:`StateError` where it cannot be used.
        """
        _config.plain("on_event", on_event)
        _config.plain("on_restart", on_restart)
        document, own = _config.document(
            state_dir=state_dir, contract=contract, current_version=current_version, version_from=version_from,
            install=install, policy=policy, trust=trust, http=http,
        )  # fmt: skip
        restart = getattr(install, "restart", None)
        if on_restart is None and restart == "exit":
            on_restart = _exit
        if own is not None and restart not in (None, "none", "exit", "system"):
            raise ValueError(f'install.restart is {restart!r}; it must be "none", "exit" or "system"')
        listen()
        thrown = Thrown()
        self._cause_of = thrown.cause_of
        self._native, reader = _native.Updater.start(
            document,
            None if own is None else _caller(own, thrown),
            None if own is None else restart,
            None if on_restart is None else _restarter(on_restart, thrown),
        )
        # Here, not on its thread: a fork in the middle of an import leaves that locked.
        log = logger()
        self._thread = threading.Thread(target=_tell, args=(reader, log, self._cause_of, on_event), name="twinflash events", daemon=True)
        self._thread.start()
        # What serves it. A Device's connection is kept here, also where the application keeps only the updater.
        self._served_by: Optional[str] = None
        self._connections: "list[_native.Device]" = []
        self._finalizer = weakref.finalize(self, _close, self._native, self._thread, self._connections)
        # At exit it may be too late: other modules' finalizers decide when these run. See _at_exit.
        self._finalizer.atexit = False
        _updaters.add(self)

    def handle_method(self, name: str, payload: Any = None) -> Optional[Answer]:
        """A direct method was called. Its answer, or ``None`` where it is the application's to answer.

        ``payload`` is what ``json.loads`` gives, as azure-iot-device hands it over; ``bytes`` are JSON as it came.

        Returns at once, but for a method that starts an update: then the hub has the first report (or two seconds have passed),
        so that no back end reads the last update's outcome. :meth:`report_done` must be called by another thread meanwhile.
        """
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        answer = self._native.handle_method(name, _json("payload", payload))
        return None if answer is None else Answer(answer[0], json.loads(answer[1]))

    def handle_twin(self, twin: Union[Mapping[str, Any], bytes], *, complete: bool) -> None:
        """A twin was read (``complete``: ``{"desired": …, "reported": …}``), or its desired properties were patched."""
        if not isinstance(twin, (Mapping, bytes, bytearray, memoryview)):
            raise TypeError(f"twin must be a dict or bytes, not {type(twin).__name__}")
        self._native.handle_twin(_config.flag("complete", complete), _json("twin", twin))

    def twin_failed(self) -> None:
        """The twin that was to be read could not be: it is asked for again."""
        self._native.twin_failed()

    def connected(self, connected: bool = True) -> None:
        """The hub is connected, or no longer."""
        self._native.connected(_config.flag("connected", connected))

    def report_done(self, id: int, status: int) -> None:
        """A report's result: the hub's status, such as 204, or 0 if the report was lost."""
        if _config.number("status", status) >= 600:
            raise ValueError(f"status is {status}; a hub's lies between 200 and 599, and 0 is a lost report")
        self._native.report_done(_config.number("id", id), status)

    def next_outbound(self, timeout: Optional[Seconds] = None) -> Optional[Outbound]:
        """The next thing to be sent to the hub; ``None`` where there was none in time, or the updater is closed. Not where
        :func:`twinflash.attach` or a :class:`twinflash.Device` takes them."""
        raw = self._native.next_outbound(_timeout(timeout))
        if raw is None:
            return None
        id, patch = raw
        return ReadTwin() if patch is None else Report(id, json.loads(patch))

    def reports(self) -> Iterator[Outbound]:
        """Everything that is to be sent to the hub, as it comes; ends when the updater is closed."""
        while True:
            outbound = self.next_outbound()
            if outbound is not None:
                yield outbound
            elif self.closed:
                return

    def events(self) -> Events:
        """Everything that happens from now on, for ``for`` or ``async for``."""
        return Events(self._native.events(), self._cause_of)

    def status(self) -> Status:
        """Where everything stands."""
        return status_of(self._native.status(), self._cause_of)

    def wait(self, timeout: Optional[Seconds] = None) -> Optional[Outcome]:
        """Waits until an update has ended, none runs, and the hub has been told (if it is connected): the outcome. ``None`` where
        there was no end in time, or the updater was closed.

        With ``Policy(confirm="connected")``, the default, an update ends by what comes over the connection: the connection must
        not be served by the thread that waits here.
        """
        raw = self._native.wait(_timeout(timeout))
        return None if raw is None else outcome_of(raw, self._cause_of)

    def confirm(self) -> None:
        """The application says that the new version is good."""
        self._native.confirm()

    def cancel(self) -> bool:
        """Cancels the update that runs; ``False`` where none does. :class:`BusyError` where it can no longer be cancelled."""
        return self._native.cancel()

    def approve(self) -> bool:
        """The user agrees to what the update waits for (:class:`Waiting` ``on`` ``"consent"``); ``False`` where nobody is asked.
        Who does not agree calls :meth:`cancel`."""
        return self._native.approve()

    def defer(self, seconds: Seconds) -> bool:
        """The user puts the update off: until then nobody is asked, no attempt at the download is begun (one that runs goes on),
        and nothing applied; also over restarts. ``False`` where no update runs. :class:`BusyError` where it is being applied."""
        return self._native.defer(_config.seconds("seconds", seconds))

    def install_file(
        self, path: Path, *, version: Optional[str] = None, check: Optional[str] = None, manifest: Optional[Path] = None
    ) -> None:
        """Installs an image from a file of this device, such as one on a USB stick: under the same rules as any other, and
        reported like any other. Nobody is asked for consent. Where keys are trusted and no ``manifest`` is given, it is the
        file's own name and ``.jws``. The file must stay until the update is being applied. :class:`BusyError` where an update
        runs."""
        file = _config.path("path", path)
        beside = None if manifest is None else _config.path("manifest", manifest)
        self._native.install_file(file, _config.text("version", version), _config.text("check", check), beside)

    def pause(self) -> None:
        """Pauses the download of the update that runs, also over restarts, until it is resumed or replaced."""
        self._native.pause()

    def resume(self) -> None:
        """Goes on with a paused download; at once also with one that waits for its next attempt."""
        self._native.resume()

    @property
    def closed(self) -> bool:
        """It was closed."""
        return self._native.closed

    def close(self) -> None:
        """Stops with a checkpoint and gives the state directory back; a running update goes on at the next start. Ends the
        connection of a :class:`Device`, too. Returns within a second or so, whatever network and disk do."""
        for connection in self._connections:
            connection.close()
        self._native.close()
        self._finalizer()

    def _serve_by(self, what: str) -> None:
        """Two that serve one updater would take each other's reports, and two of one device its connection."""
        if self._served_by is not None:
            raise StateError(f"the updater has {self._served_by} already")
        self._served_by = what

    def __enter__(self) -> "Updater":
        return self

    def __exit__(
        self, type: Optional[Type[BaseException]], value: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        try:
            if self.closed:
                return "<twinflash.Updater closed>"
            status = self.status()
            return f"<twinflash.Updater {status.phase or 'idle'}, version {status.running_version}>"
        except StateError:
            return "<twinflash.Updater of another process>"


_updaters: "weakref.WeakSet[Updater]" = weakref.WeakSet()


def _close(native: _native.Updater, thread: threading.Thread, connections: "list[_native.Device]") -> None:
    if native.is_ours:
        for connection in connections:
            connection.close()
        native.close()
        if thread is not threading.current_thread():
            thread.join(1)


def _at_exit() -> None:
    """No thread of ours may come back to an interpreter that is gone."""
    for updater in list(_updaters):
        _close(updater._native, updater._thread, updater._connections)
    if not _native.quiesce(5):
        logger().warning("an installer or a handler is still at work while the interpreter ends")


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_native.after_fork)


def _tell(reader: _native.Reader, log: logging.Logger, cause_of: CauseOf, on_event: Optional[Callable[[Event], object]]) -> None:
    """Logs each event and gives it to the application, on a thread of its own: whoever logs or calls back here holds nothing
    up, and may call everything."""
    while True:
        raw = reader.next(None)
        if not raw:
            return
        event = event_of(raw, cause_of)
        log.log(level_of(event), "%s", event)
        if on_event is not None:
            try:
                on_event(event)
            except Exception:
                log.exception("on_event failed at %r", event)


def _caller(installer: Installer, thrown: Thrown) -> Callable[..., Any]:
    """What the native module calls; it makes every exception one of ours."""

    def call(name: str, *arguments: Any) -> Any:
        try:
            if name == "begin":
                size, version, resume_at = arguments
                start = installer.begin(Image(size, version), resume_at)
                if start not in (0, resume_at):
                    raise ValueError(f"it wants to start at {start}; 0 and {resume_at} can be")
                return start
            if name in ("holds", "read_back"):
                method = getattr(installer, name, None)
                return (method is not None and bool(method(*arguments))) if name == "holds" else method and method(*arguments)
            result = getattr(installer, name)(*arguments)
            if name == "inspect" and result not in ("old", "new", "partial", "unknown"):
                raise ValueError(f'it gave {result!r}; "old", "new", "partial" and "unknown" can be')
            return result if name in ("inspect", "sync") else None
        except TwinflashError as error:
            thrown.keep(error.message, error)
            raise
        except Exception as error:
            logger().exception("the installer's %s failed", name)
            message = f"the installer's {name}: {type(error).__name__}: {error}"
            thrown.keep(message, error)
            raise TwinflashError(message, code=_code_of(error)) from error

    return call


def _restarter(on_restart: Callable[[Any], object], thrown: Thrown) -> Callable[[Any], object]:
    def restart(how: Any) -> object:
        try:
            return on_restart(how)
        except Exception as error:
            thrown.keep(str(error), error)
            raise

    return restart


def _code_of(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "no-permission"
    if isinstance(error, OSError):
        return "no-space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "storage"
    return "install-failed"


def _exit(restart: object) -> None:
    """Ends the process from a thread that is not the main one: the supervisor starts the new version."""
    import logging

    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass
    logging.shutdown()
    os._exit(0)


def _timeout(timeout: Optional[Seconds]) -> Optional[float]:
    return None if timeout is None else _config.seconds("timeout", timeout)


#: `json.dumps` makes an encoder for each call that wants it strict.
_encode = json.JSONEncoder(allow_nan=False).encode


def _json(name: str, value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    try:
        return _encode(value).encode()
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} is not JSON: {error}") from None
