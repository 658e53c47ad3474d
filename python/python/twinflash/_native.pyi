"""The native module. Private: use the package."""

from typing import Any, Callable, Dict, Optional, Tuple, final

from ._events import RawOutcome

__version__: str
CODES: Dict[str, int]
"""Every failure code's name and number, from the core's table."""

def quiesce(timeout: float) -> bool:
    """Waits until no thread is in Rust any more that would come back to the interpreter; says whether that is so."""

def after_fork() -> None:
    """Forgets the threads that a process that was forked off does not have."""

def guard(state_dir: str) -> Tuple[str, int, int]:
    """("nothing", 0, 0), ("counted", starts, allowed) or ("rolled-back", 0, 0)."""

@final
class Reader:
    def next(self, timeout: Optional[float] = None) -> Optional[Tuple[Any, ...]]:
        """The next event, as its class's name and its fields; ``None`` where none came in time, ``()`` after the last."""

@final
class Updater:
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

    def handle_twin(self, complete: bool, json: bytes) -> None: ...
    def twin_failed(self) -> None: ...
    def connected(self, connected: bool) -> None: ...
    def report_done(self, id: int, status: int) -> None: ...
    def next_outbound(self, timeout: Optional[float] = None) -> Optional[Tuple[int, Optional[str]]]:
        """(id, patch) of a report; (0, ``None``) where the twin is to be read; ``None`` where there is nothing."""

    def events(self) -> Reader: ...
    def status(self) -> Dict[str, Any]: ...
    def wait(self, timeout: Optional[float] = None) -> Optional[RawOutcome]: ...
    def confirm(self) -> None: ...
    def cancel(self) -> bool: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def is_ours(self) -> bool:
        """It was made in this process, not in one this was forked off from."""

@final
class Device:
    @staticmethod
    def connect(
        updater: Updater, config: bytes, on_method: Optional[Callable[[str, bytes], Optional[Tuple[int, str]]]] = None
    ) -> Device: ...
    def close(self) -> None: ...
