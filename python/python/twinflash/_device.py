"""A connection of the library's own."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Callable, Optional, Tuple, Type, Union

from . import _config, _native
from ._config import Path, Seconds
from ._events import Outcome
from ._log import logger
from ._updater import Answer, Updater

#: Answers the application's own methods: an answer, or (status, payload), or ``None`` for 404.
OnMethod = Callable[[str, Any], Union[Answer, Tuple[int, Any], None]]


class Device:
    """An updater's own connection to its hub, without an SDK. It starts to connect at once, and stays connected, with a renewed
    token and after every failure, until it or the updater is closed, which closes both. What happens to it comes with the
    updater's events.

    ``connection_string`` may be ``@FILE``: what that file holds. ``ca`` is what the hub's certificate must come from:
    ``"system"``, a PEM text or a PEM file; by default the web's authorities. A device with a certificate (``x509=true`` in its
    connection string) shows ``client_certificate``, with those up to its authority after it, and has its ``client_key``: PEM
    texts or files; one may hold both. ``on_method`` answers the methods that are not the updater's, on the connection's thread: it
    must not wait.
    """

    def __init__(
        self,
        connection_string: str,
        updater: Updater,
        *,
        ca: Optional[Path] = None,
        client_certificate: Optional[Path] = None,
        client_key: Optional[Path] = None,
        on_method: Optional[OnMethod] = None,
    ) -> None:
        if not isinstance(updater, Updater):
            raise TypeError(f"updater must be a twinflash.Updater, not {type(updater).__name__}")
        _config.plain("on_method", on_method)
        self.updater = updater
        document = _config.connection(
            connection_string, ca=ca, client_certificate=client_certificate, client_key=client_key
        )
        answer = None if on_method is None else _answerer(on_method)
        updater._serve_by("a Device")
        try:
            self._native = _native.Device.connect(updater._native, document, answer)
        except BaseException:
            updater._served_by = None
            raise
        updater._connections.append(self._native)

    def wait(self, timeout: Optional[Seconds] = None) -> Optional[Outcome]:
        """As :meth:`Updater.wait`."""
        return self.updater.wait(timeout)

    def close(self) -> None:
        """Ends the connection and closes the updater, with a checkpoint."""
        self._native.close()
        self.updater.close()

    def __enter__(self) -> "Device":
        return self

    def __exit__(
        self, type: Optional[Type[BaseException]], value: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.close()


def _answerer(on_method: OnMethod) -> Callable[[str, bytes], Optional[Tuple[int, str]]]:
    def answer(name: str, payload: bytes) -> Optional[Tuple[int, str]]:
        try:
            given = on_method(name, json.loads(payload) if payload else None)
            if given is None:
                return None
            status, body = (given.status, given.payload) if isinstance(given, Answer) else given
            return status, json.dumps(body)
        except Exception:
            logger().exception("on_method failed at %s", name)
            return 500, json.dumps("The device could not answer.")

    return answer
