"""The guard: a program's first line."""

from __future__ import annotations

from dataclasses import dataclass

from . import _config, _native
from ._config import Path
from ._value import Value


@dataclass(frozen=True, repr=False, eq=False)
class Guarded(Value):
    """What the guard did."""

    kind: str
    """``"nothing"``: no new version has to prove itself. ``"counted"``: this start of the new version was. ``"rolled-back"``: the new
    version had used up its starts, and the old one is back; end the process, so that the supervisor starts that one."""
    starts: int = 0
    """Where it was counted: starts so far, this one among them."""
    allowed: int = 0
    """Where it was counted: starts it has."""

    def __str__(self) -> str:
        return f"{self.starts} of {self.allowed}" if self.kind == "counted" else self.kind


def guard(state_dir: Path) -> Guarded:
    """Counts a start of a new version that has to prove itself, and brings the old one back when it has used up its starts.

    To be called as a program's first line, before anything of it can fail: an updater that lives in the program it updates cannot
    roll back when that program does not come to start it. For the library's installers; the application's own cannot be made here.

    Raises :class:`LockedError` where a process that runs has the state directory, :class:`StateError` where it cannot be used,
    :class:`InstallError` where the old image could not be brought back.

    >>> guard("/nowhere/state").kind
    'nothing'
    """
    return Guarded(*_native.guard(_config.path("state_dir", state_dir)))
