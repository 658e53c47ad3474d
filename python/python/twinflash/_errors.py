"""Errors, by what can be done about them."""

from __future__ import annotations

import re
from typing import Dict, Optional, Type


class TwinflashError(Exception):
    """Something failed. The base of everything twinflash raises, but for wrong arguments' ``TypeError`` and ``ValueError``.

    ``code`` is the failure's name as the device's twin shows it, such as ``"http-status"``; ``message`` is one line that says
    what failed, with which value, and what to do about it. Neither ever holds a secret.

    An installer of the application's own may raise one with a code of its choice:

    >>> raise TwinflashError("no room for the image", code="no-space")
    Traceback (most recent call last):
    ...
    twinflash._errors.TwinflashError: no room for the image
    """

    code: str
    message: str

    def __init__(self, message: str, *, code: str = "install-failed") -> None:
        super().__init__(message)
        self.message = message
        self.code = code

    def __reduce__(self) -> "tuple[object, ...]":
        return (error_of, (self.code, self.message))


class RequestError(TwinflashError):
    """The back end must ask in another way."""


class BusyError(TwinflashError):
    """An update runs that must end first, or can no longer be cancelled: try again later."""


class TransferError(TwinflashError):
    """The server, or the way to it, has to be looked at."""


class VerificationError(TwinflashError):
    """The image is not the one that was announced: look at what was published, and by whom."""


class TrustError(TwinflashError):
    """Nothing that is trusted vouches for the image: look at its manifest, who signed it, and the device's keys."""


class InstallError(TwinflashError):
    """The device has to be looked at: its storage, its installer, its boot loader, or the new version itself."""


class EndedError(TwinflashError):
    """Somebody wanted the update to end: it was cancelled, or a newer request took over."""


class StateError(TwinflashError, RuntimeError):
    """The updater cannot be used here or now: it is closed, its state directory cannot be used, it was made before a fork, or
    the call would wait for its own thread."""


class LockedError(StateError):
    """Another process holds the state directory."""


class ConfigError(TwinflashError, ValueError):
    """The configuration is wrong, or what it names cannot be read."""


#: Every failure code, and its class.
CLASSES: Dict[str, Type[TwinflashError]] = {
    "invalid-request": RequestError,
    "invalid-uri": RequestError,
    "insecure-uri": RequestError,
    "invalid-check": RequestError,
    "check-required": RequestError,
    "version-refused": RequestError,
    "busy": BusyError,
    "manifest-required": TrustError,
    "manifest-invalid": TrustError,
    "untrusted": TrustError,
    "expired": TrustError,
    "incompatible": TrustError,
    "invalid-key": TrustError,
    "http-status": TransferError,
    "http-protocol": TransferError,
    "redirect": TransferError,
    "network": TransferError,
    "tls": TransferError,
    "stalled": TransferError,
    "too-large": TransferError,
    "size-mismatch": VerificationError,
    "crc-mismatch": VerificationError,
    "hash-mismatch": VerificationError,
    "decryption-failed": VerificationError,
    "no-space": InstallError,
    "no-permission": InstallError,
    "storage": InstallError,
    "install-failed": InstallError,
    "not-confirmed": InstallError,
    "boot-failed": InstallError,
    "rollback-failed": InstallError,
    "cancelled": EndedError,
    "superseded": EndedError,
    "dry-run": EndedError,
    "state": StateError,
    "locked": LockedError,
    "invalid-config": ConfigError,
}


class Thrown:
    """What the application's own code raised last: the cause of the failure that came of it."""

    def __init__(self) -> None:
        self._last: "Optional[tuple[str, BaseException]]" = None

    def keep(self, message: str, error: BaseException) -> None:
        # As the core shows it: one line, of which enough is compared.
        self._last = re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", message)[:200], error

    def cause_of(self, message: str) -> Optional[BaseException]:
        last = self._last
        return last[1] if last is not None and last[0] and last[0] in message else None


def error_of(code: str, message: str) -> TwinflashError:
    """The error a failure code stands for."""
    return CLASSES.get(code, TwinflashError)(message, code=code)
