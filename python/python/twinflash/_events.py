"""What happens, as values: they print well, compare, and can be matched by ``match``."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional, Tuple, Type, Union

from ._errors import TwinflashError, error_of
from ._value import Value


class Phase(str, enum.Enum):
    """Where a running update stands."""

    WAITING = "waiting"
    """Accepted; the policy has not let it start yet."""
    DOWNLOADING = "downloading"
    """The image is being fetched, checked as it streams, and written."""
    VERIFYING = "verifying"
    """Every byte is there; the checks are compared."""
    APPLYING = "applying"
    """The image is being installed and activated. From here on it can not be cancelled."""
    REBOOTING = "rebooting"
    """Activated; it runs after a restart."""
    CONFIRMING = "confirming"
    """It runs, and has to prove itself."""
    ROLLING_BACK = "rolling-back"
    """It failed after it was activated; the old image is being brought back."""

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, repr=False, eq=False)
class Failure(Value):
    """Why something failed: a code for programs and a line for people."""

    code: str
    message: str
    cause: Optional[BaseException] = field(default=None, repr=False, compare=False)
    """What an installer or ``on_restart`` of the application's raised, where that is why."""

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"

    def error(self) -> TwinflashError:
        """The exception this failure would be.

        >>> type(Failure("http-status", "404 Not Found").error()).__name__
        'TransferError'
        """
        error = error_of(self.code, self.message)
        error.__cause__ = self.cause
        return error


@dataclass(frozen=True, repr=False, eq=False)
class Outcome(Value):
    """How an update ended. However it did, the next one can start."""

    kind: str
    """``completed``, ``up-to-date``, ``failed``, ``rolled-back``, ``cancelled`` or ``superseded``."""
    failure: Optional[Failure] = None
    """Why, where it failed or was rolled back."""
    phase: Optional[Phase] = None
    """Where it failed or was cancelled."""

    @property
    def is_success(self) -> bool:
        """The device runs what was asked for."""
        return self.kind in ("completed", "up-to-date")

    def raise_for_failure(self) -> None:
        """Raises what went wrong, if something did.

        >>> Outcome("completed").raise_for_failure()
        """
        if self.failure is not None:
            raise self.failure.error()

    def __str__(self) -> str:
        if self.failure is None:
            return self.kind
        return f"{self.kind}: {self.failure}" if self.phase is None else f"{self.kind} while {self.phase}: {self.failure}"


@dataclass(frozen=True, repr=False, eq=False)
class Retrying(Value):
    """A download whose last attempt failed."""

    failure: Failure
    attempts: int
    """Attempts that have failed."""
    after: Optional[float]
    """Seconds until the next one; ``None`` while one is being made, or the download is paused."""


@dataclass(frozen=True, repr=False, eq=False)
class Waiting(Value):
    """What an update waits for; also the event that it waits for something else than before."""

    on: str
    """``consent`` (:meth:`Updater.approve`), ``deferral``, ``window``, ``ready``, ``start-delay`` or ``clock``."""
    before: str
    """What cannot begin: ``download`` or ``apply``."""
    after: Optional[float]
    """Seconds until it is over, or somebody is asked again; ``None`` where nobody knows."""

    def __str__(self) -> str:
        return f"waiting for {self.on} before {self.before}"


@dataclass(frozen=True, repr=False, eq=False)
class Status(Value):
    """Where everything stands."""

    phase: Optional[Phase]
    """The running update's phase; ``None`` when none runs."""
    version: Optional[str]
    """The version the running or last update asked for."""
    bytes: int
    """Bytes of the image that are there."""
    size: Optional[int]
    """The image's size, if it is known."""
    outcome: Optional[Outcome]
    """How the last update ended; ``None`` while one runs, and before the first."""
    running_version: Optional[str]
    """The version that runs now."""
    paused: bool
    """The download is paused."""
    retry: Optional[Retrying]
    """The last attempt at the download failed, and no byte has come since."""
    waiting: Optional[Waiting]
    """What the running update waits for, besides its next attempt."""


@dataclass(frozen=True, repr=False, eq=False)
class Accepted(Value):
    """A request was accepted."""

    uri: str
    """The image's address, without user name and query."""
    version: Optional[str]

    def __str__(self) -> str:
        return f"accepted: {self.uri}" + (f", version {self.version}" if self.version else "")


@dataclass(frozen=True, repr=False, eq=False)
class PhaseChanged(Value):
    """The update has come to a phase."""

    phase: Phase

    def __str__(self) -> str:
        return str(self.phase)


@dataclass(frozen=True, repr=False, eq=False)
class Progress(Value):
    """So much of the image is there. At most ten a second, and one as an attempt ends."""

    bytes: int
    total: Optional[int]
    """The image's size, if it is known."""

    def __str__(self) -> str:
        return f"{self.bytes} bytes" if self.total is None else f"{self.bytes} of {self.total} bytes"


@dataclass(frozen=True, repr=False, eq=False)
class Retry(Value):
    """An attempt failed and is repeated after so many seconds."""

    failure: Failure
    after: float

    def __str__(self) -> str:
        return f"trying again in {self.after:.1f} s: {self.failure}"


@dataclass(frozen=True, repr=False, eq=False)
class Verified(Value):
    """The image is there and passed what it is checked by: a ``signature``, the request's ``checks``,
    or only its ``transport``."""

    by: str
    bytes: int
    sha256: str
    """In hexadecimal."""

    def __str__(self) -> str:
        return f"verified by {self.by}: {self.bytes} bytes, sha256 {self.sha256}"


@dataclass(frozen=True, repr=False, eq=False)
class Ended(Value):
    """The update ended."""

    outcome: Outcome

    def __str__(self) -> str:
        return str(self.outcome)


@dataclass(frozen=True, repr=False, eq=False)
class Refused(Value):
    """A request was refused."""

    failure: Failure

    def __str__(self) -> str:
        return f"refused: {self.failure}"


@dataclass(frozen=True, repr=False, eq=False)
class Warned(Value):
    """Something a person should look at, such as a line of what a command printed that failed."""

    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, repr=False, eq=False)
class KeysRotated(Value):
    """Other keys are trusted from now on: the key set of this version."""

    version: int

    def __str__(self) -> str:
        return f"the key set of version {self.version} is trusted from now on"


@dataclass(frozen=True, repr=False, eq=False)
class Connected(Value):
    """A :class:`Device` is connected to its hub."""

    server: str

    def __str__(self) -> str:
        return f"connected to {self.server}"


@dataclass(frozen=True, repr=False, eq=False)
class Disconnected(Value):
    """A :class:`Device` is not connected; the next attempt is made after so many seconds."""

    reason: str
    retry_in: float

    def __str__(self) -> str:
        return f"disconnected: {self.reason}; next attempt in {self.retry_in:.1f} s"


@dataclass(frozen=True, repr=False, eq=False)
class WaitingForClock(Value):
    """The wall time is not known yet; connecting waits for it."""

    def __str__(self) -> str:
        return "the wall time is not known yet; connecting waits for it"


@dataclass(frozen=True, repr=False, eq=False)
class HubRefused(Value):
    """The hub did not do what a :class:`Device` asked it for."""

    message: str

    def __str__(self) -> str:
        return f"refused by the hub: {self.message}"


Event = Union[
    Accepted, PhaseChanged, Progress, Waiting, Retry, Verified, Ended, Refused, Warned, KeysRotated,
    Connected, Disconnected, WaitingForClock, HubRefused,
]  # fmt: skip

RawOutcome = Tuple[str, Optional[Tuple[str, str]], Optional[str]]


#: What the application raised that a failure's message tells of.
CauseOf = Callable[[str], Optional[BaseException]]


def failure_of(raw: "Tuple[str, str]", cause_of: CauseOf) -> Failure:
    code, message = raw
    return Failure(code, message, cause_of(message))


def phase_of(raw: Optional[str]) -> Optional[Phase]:
    return None if raw is None else Phase(raw)


def outcome_of(raw: RawOutcome, cause_of: CauseOf) -> Outcome:
    kind, failure, phase = raw
    return Outcome(kind, None if failure is None else failure_of(failure, cause_of), phase_of(phase))


_CLASSES: Dict[str, Type[Any]] = {
    of.__name__: of
    for of in (Accepted, PhaseChanged, Progress, Waiting, Retry, Verified, Ended, Refused, Warned, KeysRotated,
               Connected, Disconnected, WaitingForClock, HubRefused)
}  # fmt: skip


def event_of(raw: "Tuple[Any, ...]", cause_of: CauseOf) -> Event:
    """The event a tuple of the native module stands for."""
    name, *fields = raw
    if name in ("Retry", "Refused"):
        fields[0] = failure_of(fields[0], cause_of)
    elif name == "Ended":
        fields[0] = outcome_of(fields[0], cause_of)
    elif name == "PhaseChanged":
        fields[0] = Phase(fields[0])
    event: Event = _CLASSES[name](*fields)
    return event


def status_of(raw: Dict[str, Any], cause_of: CauseOf) -> Status:
    outcome, retry, waiting = raw["outcome"], raw["retry"], raw["waiting"]
    return Status(
        phase=phase_of(raw["phase"]),
        version=raw["version"],
        bytes=raw["bytes"],
        size=raw["size"],
        outcome=None if outcome is None else outcome_of(outcome, cause_of),
        running_version=raw["running_version"],
        paused=raw["paused"],
        retry=None if retry is None else Retrying(failure_of(retry[0], cause_of), retry[1], retry[2]),
        waiting=None if waiting is None else Waiting(*waiting),
    )


def level_of(event: Event) -> int:
    """How loud the log says it."""
    import logging

    if isinstance(event, Progress):
        return logging.DEBUG
    if isinstance(event, Ended) and not event.outcome.is_success:
        return logging.ERROR
    if isinstance(event, (Retry, Refused, Warned, Disconnected, WaitingForClock, HubRefused)):
        return logging.WARNING
    return logging.INFO
