"""How an updater is set up: keyword arguments and small classes, turned into the one document all languages share."""

from __future__ import annotations

import inspect
import json
import os
from abc import abstractmethod
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Callable, Dict, Mapping, Optional, Protocol, Sequence, Tuple, Union, runtime_checkable

from ._value import Value

#: A time: seconds, or a timedelta.
Seconds = Union[int, float, timedelta]
#: A path.
Path = Union[str, "os.PathLike[str]"]
#: A program and its arguments; never a shell's line.
Command = Sequence[str]
#: Times of the week.
Windows = Sequence[Mapping[str, Any]]
#: What makes an activated image run: ``"none"``, ``"exit"`` (this process ends, its supervisor starts it again), ``"system"``
#: (the device reboots), or a command.
Restart = Union[str, Command]


@dataclass(frozen=True, repr=False, eq=False)
class FileInstall(Value):
    """Replaces a file, in one step that no power cut can halve, and keeps the old one until the new one has proved itself."""

    path: Path
    restart: Optional[Restart] = None
    verify: Optional[str] = None
    """``"read-back"``: the new file is read from its medium and compared before it takes the old one's place."""

    def _document(self) -> Dict[str, Any]:
        return {
            "file": path("install.path", self.path),
            "restart": _restart(self.restart),
            "verify": text("install.verify", self.verify),
        }


@dataclass(frozen=True, repr=False, eq=False)
class SlotsInstall(Value):
    """Writes straight into whichever of two slots does not run, and switches."""

    slots: Mapping[str, Path]
    """The two slots, by name: files, directories' files or block devices."""
    switch: Mapping[str, Any]
    """How is switched: ``{"link": "/boot/current"}``, ``{"uboot": {…}}``, ``{"tryboot": {…}}`` or ``{"commands": {…}}``."""
    running: Optional[Mapping[str, Any]] = None
    """What tells the slot that runs, where ``switch`` does not."""
    verify: Optional[str] = None
    """``"read-back"``: the slot is read and compared before it is switched to."""
    command_time: Optional[Seconds] = None
    """The longest a command may take."""
    restart: Optional[Restart] = None

    def _document(self) -> Dict[str, Any]:
        slots = _mapping("install.slots", self.slots)
        return {
            "slots": {name: path(f"install.slots[{name!r}]", slot) for name, slot in slots.items()},
            "switch": _paths("install.switch", _mapping("install.switch", self.switch)),
            "running": None if self.running is None else _paths("install.running", _mapping("install.running", self.running)),
            "verify": text("install.verify", self.verify),
            "command_time": _seconds("install.command_time", self.command_time),
            "restart": _restart(self.restart),
        }


@dataclass(frozen=True, repr=False, eq=False)
class CommandInstall(Value):
    """Hands the image to a program: ``rauc``, ``swupdate``, a script. ``{image}`` in the command stands for the image's file."""

    command: Command
    inspect: Optional[Command] = None
    confirm: Optional[Command] = None
    rollback: Optional[Command] = None
    install_time: Optional[Seconds] = None
    """The longest ``command`` may take."""
    command_time: Optional[Seconds] = None
    """The longest each of the others may take."""
    restart: Optional[Restart] = None

    def _document(self) -> Dict[str, Any]:
        return {
            "command": _command("install.command", self.command),
            "inspect": _optional_command("install.inspect", self.inspect),
            "confirm": _optional_command("install.confirm", self.confirm),
            "rollback": _optional_command("install.rollback", self.rollback),
            "install_time": _seconds("install.install_time", self.install_time),
            "command_time": _seconds("install.command_time", self.command_time),
            "restart": _restart(self.restart),
        }


@dataclass(frozen=True, repr=False, eq=False)
class Image(Value):
    """What is to be installed, as far as it is known before its bytes come."""

    size: Optional[int]
    """In bytes, if announced by request or server."""
    version: Optional[str]
    """The version asked for, if the request names one."""


@runtime_checkable
class Installer(Protocol):
    """How an application installs by itself.

    All methods are called on threads of the updater's, one at a time, and may block. Every one but ``write`` may be called
    again after a crash in the middle of it, and must then end in the same state. What they raise fails the update: a
    :class:`TwinflashError` with its code, ``OSError`` as ``no-space``, ``no-permission`` or ``storage``, anything else as
    ``install-failed``. None of them may call ``handle_method``, ``wait`` or ``close`` of the updater.

    The order is: ``inspect`` at every start; for an update ``begin``, many ``write`` and ``sync``, ``finish``, ``activate``, a
    restart if the attribute ``restart`` says so (``"none"``, ``"exit"`` or ``"system"``), then ``confirm`` or ``rollback``.
    ``abort`` ends an update before ``activate``. There may also be ``holds(sha256: bytes) -> bool``: whether the active image is
    one of this digest, so that it need not be fetched again; and ``read_back(size: int, sha256: bytes)``.
    """

    @abstractmethod
    def inspect(self) -> str:
        """Which image runs: ``"old"``, ``"new"``, ``"partial"`` (old, and a new one half written) or ``"unknown"``. The new one is
        the one written last, also once it is confirmed; from ``begin`` on the one being written, which does not run."""
        ...

    @abstractmethod
    def begin(self, image: Image, resume_at: int) -> int:
        """Makes ready to write. The answer is where writing really starts: ``resume_at`` where the bytes before it are still
        there, else 0."""
        ...

    @abstractmethod
    def write(self, offset: int, data: bytes) -> None:
        """Writes bytes. Offsets follow one another without gaps from where ``begin`` said."""

    @abstractmethod
    def sync(self) -> int:
        """Makes durable what was written; the answer is up to which offset."""
        ...

    @abstractmethod
    def finish(self) -> None:
        """All bytes are written, synced and verified: make the image ready to be activated."""

    @abstractmethod
    def activate(self) -> None:
        """Switches to the new image, in one step that no power cut can halve."""

    @abstractmethod
    def confirm(self) -> None:
        """The new image has proved itself: it stays."""

    @abstractmethod
    def rollback(self) -> None:
        """Switches back to the old image."""

    @abstractmethod
    def abort(self) -> None:
        """Ends an update that was not activated: what was written goes."""


@dataclass(frozen=True, repr=False, eq=False)
class Policy(Value):
    """What the device's owner allows. What is not given stays as it is by default; times are seconds or timedeltas."""

    allow_http: Optional[bool] = None
    """Also images over plain http."""
    max_size: Optional[int] = None
    """The largest image, in bytes."""
    require_check: Optional[bool] = None
    """A request without a check value is refused."""
    require_manifest: Optional[bool] = None
    """A signed manifest must vouch for every image."""
    floor: Optional[str] = None
    """The lowest version a manifest may be of."""
    version: Optional[str] = None
    """Which versions are taken, besides what the contract says: ``"other"`` than the one that runs, ``"higher"``, or ``"none"``."""
    consent: Optional[Sequence[str]] = None
    """Before which of ``"download"`` and ``"apply"`` the user must agree: :meth:`Updater.approve`."""
    consent_by: Optional[str] = None
    """Who may agree: ``"anybody"`` (default), also by the method ``approveFirmwareUpdate``, or ``"local"``: at the device only."""
    consent_command: Optional[Command] = None
    """Asks the user: status 0 is yes, 75 not yet, any other no. ``{stage}``, ``{version}`` and ``{size}`` are filled in."""
    consent_interval: Optional[Seconds] = None
    """It is asked again after this, where it does not print itself in how many seconds."""
    ready: Optional[Command] = None
    """Says whether the device can take it now: status 0 is yes, any other not yet."""
    ready_interval: Optional[Seconds] = None
    start_delay: Optional[Seconds] = None
    """A download begins after a random part of this."""
    bandwidth: Optional[int] = None
    """No more bytes a second."""
    dry_run: Optional[bool] = None
    """Download and verify, and write and install nothing."""
    download_windows: Optional[Windows] = None
    """When images are downloaded: ``{"days": ["sat"], "from": "22:00", "to": "04:30", "zone": "Europe/Berlin"}``, of which
    ``days`` (every day) and ``zone`` (UTC) may be left out."""
    apply_windows: Optional[Windows] = None
    """When images are applied."""
    retry_first: Optional[Seconds] = None
    retry_longest: Optional[Seconds] = None
    retry_time: Optional[Seconds] = None
    """So long a download is tried again."""
    retry_sizes: Optional[int] = None
    """So many times the image's size is fetched at most."""
    checkpoint_interval: Optional[Seconds] = None
    checkpoint_bytes: Optional[int] = None
    stall_time: Optional[Seconds] = None
    stall_bytes: Optional[int] = None
    """Fewer bytes than this in ``stall_time`` are a stall."""
    max_redirects: Optional[int] = None
    progress_step: Optional[int] = None
    """Progress is reported in such steps, in percent; 0: never."""
    progress_interval: Optional[Seconds] = None
    answer_wait: Optional[Seconds] = None
    """The longest a method's answer waits for the hub to have the first report."""
    apply_attempts: Optional[int] = None
    confirm: Optional[Union[str, Command]] = None
    """What proves a new version: ``"connected"``, ``"call"`` (:meth:`Updater.confirm`), ``"none"``, or a health command."""
    confirm_attempts: Optional[int] = None
    confirm_time: Optional[Seconds] = None

    def _document(self) -> Dict[str, Any]:
        return {
            field.name: _POLICY[str(field.type)](f"policy.{field.name}", getattr(self, field.name)) for field in fields(self)
        }


@dataclass(frozen=True, repr=False, eq=False)
class Trust(Value):
    """Whose signature an image needs, and what the device is. Nothing is installed but what a signed manifest vouches for."""

    keys: Sequence[Path]
    """Public keys: PEM files, or PEM texts."""
    threshold: Optional[int] = None
    """So many of them must sign; by default one."""
    version: Optional[int] = None
    """The key set's, which a newer one replaces."""
    revoked: Optional[Sequence[str]] = None
    """Key ids that are no longer trusted."""
    manufacturer: Optional[str] = None
    model: Optional[str] = None
    hardware_revision: Optional[str] = None
    decryption_key: Optional[Path] = None
    """An age identity file, which only its owner may read: decrypts images that a manifest calls encrypted."""

    def _document(self) -> Dict[str, Any]:
        return {
            "keys": _command("trust.keys", self.keys, "a list of paths or PEM texts"),
            "threshold": _number("trust.threshold", self.threshold),
            "version": _number("trust.version", self.version),
            "revoked": None if self.revoked is None else _command("trust.revoked", self.revoked, "a list of str"),
            "manufacturer": text("trust.manufacturer", self.manufacturer),
            "model": text("trust.model", self.model),
            "hardware_revision": text("trust.hardware_revision", self.hardware_revision),
            "decryption_key": None if self.decryption_key is None else path("trust.decryption_key", self.decryption_key),
        }


@dataclass(frozen=True, repr=False, eq=False)
class Http(Value):
    """How images are fetched."""

    ca: Optional[Path] = None
    """The authorities servers' certificates must come from: ``"system"``, a PEM text, or a PEM file. By default the web's."""
    proxy: Optional[str] = None
    """``"environment"`` (default), ``"none"`` or a URL."""
    user_agent: Optional[str] = None
    connect_timeout: Optional[Seconds] = None
    hosts: Optional[Sequence[str]] = None
    """The only hosts that are asked, also after a redirect: names, or ``"*.domain"``. By default any."""
    client_certificate: Optional[Path] = None
    """What is shown to a server that asks who the device is: a PEM text, or a PEM file; the key may be in it."""
    client_key: Optional[Path] = None
    """The certificate's key, where it is not beside the certificate."""
    headers: Optional[Mapping[str, str]] = field(default=None, repr=False)
    """Headers of every request to the server an address names, not to one it redirects to. Values are shown nowhere;
    ``@FILE`` is what that file holds."""

    def _document(self) -> Dict[str, Any]:
        return {
            "hosts": None if self.hosts is None else _command("http.hosts", self.hosts, "a list of str"),
            "client_certificate": None if self.client_certificate is None else path("http.client_certificate", self.client_certificate),
            "client_key": None if self.client_key is None else path("http.client_key", self.client_key),
            "headers": None if self.headers is None else dict(_mapping("http.headers", self.headers)),
            "ca": None if self.ca is None else path("http.ca", self.ca),
            "proxy": text("http.proxy", self.proxy),
            "user_agent": text("http.user_agent", self.user_agent),
            "connect_timeout": _seconds("http.connect_timeout", self.connect_timeout),
        }


def document(
    *,
    state_dir: Path,
    contract: Union[Path, Mapping[str, Any]],
    current_version: Optional[str],
    version_from: Optional[Mapping[str, Any]],
    install: object,
    policy: Optional[Policy],
    trust: Optional[Trust],
    http: Optional[Http],
) -> Tuple[bytes, Optional[Installer]]:
    """The document, and the installer where it is the application's own."""
    made: Dict[str, Any] = {
        "state_dir": path("state_dir", state_dir),
        "contract": _contract(contract),
        "current_version": text("current_version", current_version),
        "version_from": None if version_from is None else _paths("version_from", _mapping("version_from", version_from)),
    }
    own = None
    if isinstance(install, (FileInstall, SlotsInstall, CommandInstall)):
        made["install"] = install._document()
    elif isinstance(install, Installer):
        for name in (*_METHODS, "holds", "read_back"):
            plain(f"install.{name}", getattr(install, name, None))
        own = install
    else:
        missing = [name for name in _METHODS if not callable(getattr(install, name, None))]
        raise TypeError(
            "install must be a FileInstall, SlotsInstall, CommandInstall or an object with the methods of twinflash.Installer;"
            f" {type(install).__name__} lacks {', '.join(missing)}"
        )
    if policy is not None:
        made["policy"] = _instance("policy", policy, Policy)._document()
    if trust is not None:
        made["trust"] = _instance("trust", trust, Trust)._document()
    if http is not None:
        made["http"] = _instance("http", http, Http)._document()
    return _encoded(made), own


def connection(connection_string: str, **paths: Optional[Path]) -> bytes:
    """The same document, for a connection only."""
    if not isinstance(connection_string, str):
        raise _wrong("connection_string", connection_string, "a str")
    made: Dict[str, Any] = {"state_dir": os.curdir, "connection_string": connection_string}
    made.update((name, None if given is None else path(name, given)) for name, given in paths.items())
    return _encoded(made)


def _encoded(document: Dict[str, Any]) -> bytes:
    members: "list[str]" = []
    for name, value in _given(document).items():
        try:
            members.append(f"{json.dumps(name)}:{json.dumps(value, ensure_ascii=False, allow_nan=False)}")
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name} is not JSON: {error}") from None
    try:
        return f"{{{','.join(members)}}}".encode()
    except UnicodeEncodeError:
        raise ValueError("a path or text holds what is not UTF-8, and the configuration is UTF-8") from None


_METHODS = ("inspect", "begin", "write", "sync", "finish", "activate", "confirm", "rollback", "abort")


def _given(value: Any) -> Any:
    """Without what was not given."""
    if isinstance(value, dict):
        return {key: _given(item) for key, item in value.items() if item is not None}
    return value


def _wrong(name: str, value: object, wanted: str) -> TypeError:
    return TypeError(f"{name} must be {wanted}, not {type(value).__name__}")


def _instance(name: str, value: Any, of: type) -> Any:
    if not isinstance(value, of):
        raise _wrong(name, value, f"a twinflash.{of.__name__}")
    return value


def text(name: str, value: Optional[str]) -> Optional[str]:
    if value is not None and not isinstance(value, str):
        raise _wrong(name, value, "a str")
    return value


def path(name: str, value: Path) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise _wrong(name, value, "a str or os.PathLike")
    given = os.fspath(value)
    if not isinstance(given, str):
        raise _wrong(name, given, "a path of str")
    if not given:
        raise ValueError(f"{name} is empty")
    return given


def _mapping(name: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(name, value, "a mapping")
    return value


def _paths(name: str, value: Any) -> Any:
    """Mappings and sequences as JSON, and the paths in them as texts."""
    if isinstance(value, os.PathLike):
        return path(name, value)
    if isinstance(value, Mapping):
        return {key: _paths(f"{name}.{key}", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_paths(name, item) for item in value]
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value


def _contract(value: Union[Path, Mapping[str, Any]]) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, (str, os.PathLike)):
        raise _wrong("contract", value, "a name, a path or a dict")
    given = path("contract", value)
    # A path object is a file whatever it is called; a text may be a name.
    if isinstance(value, os.PathLike) and os.sep not in given and not given.endswith(".json"):
        given = os.path.join(os.curdir, given)
    return given


def plain(name: str, value: Optional[Callable[..., Any]]) -> None:
    """What is called from threads, where nobody awaits."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable, not {type(value).__name__}")
    if inspect.iscoroutinefunction(value):
        raise TypeError(f"{name} must be a plain function, not a coroutine function: it is called on a thread, without an event loop")


def flag(name: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "a bool")
    return value


def _flag(name: str, value: Optional[bool]) -> Optional[bool]:
    return None if value is None else flag(name, value)


def number(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(name, value, "an int")
    if value < 0:
        raise ValueError(f"{name} is {value}; it must not be negative")
    return value


def _number(name: str, value: Optional[int]) -> Optional[int]:
    return None if value is None else number(name, value)


def seconds(name: str, value: Seconds) -> float:
    """Seconds as a number."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(name, value, "seconds as a number or a timedelta")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} is {value}; it must be a time of 0 s or more")
    return float(value)


def _seconds(name: str, value: Optional[Seconds]) -> Optional[float]:
    return None if value is None else seconds(name, value)


def _command(
    name: str, value: Sequence[Path], wanted: str = "a list of str: a program and its arguments"
) -> "list[str]":
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise _wrong(name, value, wanted)
    for part in value:
        if not isinstance(part, (str, os.PathLike)):
            raise _wrong(name, part, wanted)
    return [os.fspath(part) for part in value]


def _optional_command(name: str, value: Optional[Command]) -> "Optional[list[str]]":
    return None if value is None else _command(name, value)


def _word(name: str, value: Optional[Union[str, Command]]) -> Any:
    return value if value is None or isinstance(value, str) else _command(name, value)


def _restart(value: Optional[Restart]) -> Any:
    return _word("install.restart", value)


#: What a policy's member is checked by, by its type as it is written there.
def _words(name: str, words: Any) -> Optional[Sequence[str]]:
    return None if words is None else _command(name, words, "a list of str")


def _windows(name: str, windows: Any) -> Optional[Sequence[Mapping[str, Any]]]:
    if windows is None:
        return None
    if isinstance(windows, (str, bytes, Mapping)):
        raise _wrong(name, windows, "a list of mappings")
    return [dict(_mapping(f"{name}[{number}]", window)) for number, window in enumerate(windows)]


_POLICY: Dict[str, Callable[[str, Any], Any]] = {
    "Optional[bool]": _flag,
    "Optional[int]": _number,
    "Optional[str]": text,
    "Optional[Seconds]": _seconds,
    "Optional[Sequence[str]]": _words,
    "Optional[Command]": _words,
    "Optional[Windows]": _windows,
    "Optional[Union[str, Command]]": _word,
}
