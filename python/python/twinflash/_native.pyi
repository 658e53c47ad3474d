"""The native module. Private: use the package."""

from typing import Any, Callable, Dict, Optional, Tuple, final

from ._events import RawOutcome

__all__ = ["CODES", "Device", "Reader", "Updater", "__version__", "after_fork", "guard", "lines", "quiesce"]

__version__: str
"""The package's and the core's."""
CODES: Dict[str, int]
"""Every failure code's name and number, from the core's table."""

def quiesce(timeout: float) -> bool:
    """Waits until no thread is in Rust any more that would come back to the interpreter; says whether that is so."""

def lines() -> Optional[Reader]:
    """A reader of what the core logs, until :func:`quiesce`: ("Line", level, target, text). ``None`` where there is one."""

def after_fork() -> None:
    """Forgets the threads that a process that was forked off does not have."""

def guard(state_dir: str) -> Tuple[str, int, int]:
    """("nothing", 0, 0), ("counted", starts, allowed) or ("rolled-back", 0, 0)."""

@final
class Reader:
    """Reads events from the moment on at which it was made."""

    def next(self, timeout: Optional[float] = None) -> Optional[Tuple[Any, ...]]:
        """The next event, as its class's name and its fields; ``None`` where none came in time, ``()`` after the last."""

@final
class Updater:
    """The core's updater."""

    @staticmethod
    def start(
        config: bytes,
        installer: Optional[Callable[..., Any]] = None,
        installer_restart: Optional[str] = None,
        on_restart: Optional[Callable[[Any], object]] = None,
    ) -> Tuple[Updater, Reader]:
        """An updater, and a reader of all its events from the first on. ``installer(name, *arguments)`` calls one of the
        application's."""

    def handle_method(self, name: str, payload: bytes) -> Optional[Tuple[int, str]]:
        """(status, JSON), or ``None`` for a method that is not the updater's."""

    def handle_twin(self, complete: bool, json: bytes) -> None:
        """A twin was read, or its desired properties were patched."""

    def twin_failed(self) -> None:
        """The twin could not be read."""

    def connected(self, connected: bool) -> None:
        """The hub is connected, or no longer."""

    def report_done(self, id: int, status: int) -> None:
        """A report's result; 0 for a lost one."""

    def next_outbound(self, timeout: Optional[float] = None) -> Optional[Tuple[int, Optional[str]]]:
        """(id, patch) of a report; (0, ``None``) where the twin is to be read; ``None`` where there is nothing."""

    def events(self) -> Reader:
        """A reader of what happens from now on."""

    def status(self) -> Dict[str, Any]:
        """The members of :class:`twinflash.Status`; outcome and phases as names."""

    def wait(self, timeout: Optional[float] = None) -> Optional[RawOutcome]:
        """The outcome; ``None`` where there was no end in time."""

    def confirm(self) -> None:
        """The new version is good."""

    def cancel(self) -> bool:
        """Cancels; ``False`` where no update runs."""

    def approve(self) -> bool:
        """The user agrees; ``False`` where nobody is asked."""

    def defer(self, seconds: float) -> bool:
        """The user puts the update off; ``False`` where none runs."""

    def install_file(self, path: str, version: Optional[str], check: Optional[str], manifest: Optional[str]) -> None:
        """Installs an image from a file of this device."""

    def pause(self) -> None:
        """Pauses the download."""

    def resume(self) -> None:
        """Goes on with it."""

    def close(self) -> None:
        """Stops with a checkpoint and gives the state directory back."""

    @property
    def closed(self) -> bool:
        """It was closed."""

    @property
    def is_ours(self) -> bool:
        """It was made in this process, not in one this was forked off from."""

@final
class Device:
    """The core's connection."""

    @staticmethod
    def connect(
        updater: Updater, config: bytes, on_method: Optional[Callable[[str, bytes], Optional[Tuple[int, str]]]] = None
    ) -> Device:
        """Starts to connect with the connection string of ``config``; ``on_method(name, payload)`` gives (status, JSON) or ``None``."""

    def close(self) -> None:
        """Ends the connection and closes the updater."""
