"""Microsoft's device SDK, unmodified."""

from __future__ import annotations

import logging
import re
import threading
from types import TracebackType
from typing import Any, Callable, Optional, Type

from ._updater import Report, Updater

logger = logging.getLogger("twinflash")


class Attachment:
    """An updater that is attached to a client. A context manager that detaches."""

    def __init__(self, client: Any, updater: Updater, on_method: Optional[Callable[[Any], object]]) -> None:
        self._client = client
        self._updater = updater
        self._ended = threading.Event()
        self._noticed: "set[str]" = set()
        self._before = {name: getattr(client, name) for name in _HANDLERS}
        self._own_method = on_method or self._before["on_method_request_received"]
        # What the client is given; kept, because a bound method is another object each time.
        self._ours = {
            "on_method_request_received": self._method,
            "on_twin_desired_properties_patch_received": self._desired,
            "on_connection_state_change": self._connection,
        }
        # The SDK reads the twin for nobody, and asks for desired properties only when a handler is set.
        for name in _HANDLERS:
            setattr(client, name, self._ours[name])
        self._connection_is(bool(client.connected))
        self._thread = threading.Thread(target=self._serve, name="twinflash reports", daemon=True)
        self._thread.start()

    def detach(self) -> None:
        """Gives the client its handlers back; the updater stays. Does not touch a handler that was set meanwhile."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._look()
        for name in _HANDLERS:
            if getattr(self._client, name) == self._ours[name]:
                try:
                    setattr(self._client, name, self._before[name])
                except Exception as error:
                    # Taking a handler away tells the hub so, which a client that is shut down or off line cannot.
                    logger.info("%s could not be given back: %s", name, error)
        if not self._updater.closed:
            self._updater.connected(False)
        if self._thread is not threading.current_thread():
            self._thread.join(2)

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(
        self, type: Optional[Type[BaseException]], value: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.detach()

    def _method(self, request: Any) -> None:
        from azure.iot.device import MethodResponse

        answer = self._updater.handle_method(request.name, request.payload)
        if answer is not None:
            status, payload = answer.status, answer.payload
        elif self._own_method is not None:
            self._own_method(request)
            return
        else:
            status, payload = 404, f"There is no method {request.name!r}."
        self._client.send_method_response(MethodResponse.create_from_method_request(request, status, payload))

    def _desired(self, patch: Any) -> None:
        self._updater.handle_twin(patch, complete=False)
        chained = self._before["on_twin_desired_properties_patch_received"]
        if chained is not None:
            chained(patch)

    def _connection(self) -> None:
        self._connection_is(bool(self._client.connected))
        chained = self._before["on_connection_state_change"]
        if chained is not None:
            chained()

    def _connection_is(self, connected: bool) -> None:
        if not self._ended.is_set() and not self._updater.closed:
            self._updater.connected(connected)

    def _serve(self) -> None:
        """Sends what is to be sent. The SDK's calls wait for the hub: not on the updater's thread."""
        while not self._ended.is_set() and not self._updater.closed:
            outbound = self._updater.next_outbound(0.5)
            self._look()
            if isinstance(outbound, Report):
                self._updater.report_done(outbound.id, self._send(outbound))
            elif outbound is not None:
                self._read_twin()

    def _send(self, report: Report) -> int:
        try:
            self._client.patch_twin_reported_properties(report.patch)
            return 204
        except Exception as error:
            logger.warning("the hub was not told: %s", _shown(error))
            return _status_of(error)

    def _read_twin(self) -> None:
        try:
            twin = self._client.get_twin()
        except Exception as error:
            logger.warning("the twin could not be read: %s", _shown(error))
            self._updater.twin_failed()
            return
        self._updater.handle_twin(twin, complete=True)

    def _look(self) -> None:
        """The SDK has one handler of each kind: whoever sets another takes ours away."""
        for name in _HANDLERS:
            if name not in self._noticed and getattr(self._client, name) != self._ours[name] and not self._ended.is_set():
                self._noticed.add(name)
                logger.error(
                    "%s was set after twinflash.attach, which no longer gets it: set it before, or give attach on_method", name
                )


_HANDLERS = ("on_connection_state_change", "on_twin_desired_properties_patch_received", "on_method_request_received")


def attach(client: Any, updater: Updater, on_method: Optional[Callable[[Any], object]] = None) -> Attachment:
    """Serves an updater by an ``IoTHubDeviceClient`` of azure-iot-device: its methods, its desired properties, with the twin read
    after each connect (which the SDK leaves out), its reports and their results.

    The handlers it finds are chained: what is not the updater's goes to them, and ``on_method`` takes the place of the one for
    methods. The SDK has one handler of each kind, so one that is set afterwards replaces ours; that is noticed and logged.

    As ever with the SDK, setting a handler connects the client, if it is not connected.
    """
    if not isinstance(updater, Updater):
        raise TypeError(f"updater must be a twinflash.Updater, not {type(updater).__name__}")
    if on_method is not None and not callable(on_method):
        raise TypeError(f"on_method must be callable, not {type(on_method).__name__}")
    missing = [name for name in (*_HANDLERS, "patch_twin_reported_properties", "get_twin") if not hasattr(client, name)]
    if missing:
        raise TypeError(f"client must be an azure.iot.device.IoTHubDeviceClient; {type(client).__name__} lacks {missing[0]}")
    if ".aio" in type(client).__module__:
        raise TypeError("client is the SDK's asyncio client, which attach does not serve: use azure.iot.device.IoTHubDeviceClient")
    return Attachment(client, updater, on_method)


def _status_of(error: BaseException) -> int:
    """The hub's status, which the SDK has only in a text: "twin operation returned status 429"; 0 where there is none."""
    of: Optional[BaseException] = error
    while of is not None:
        found = re.search(r"\bstatus\D{0,9}([45]\d\d)\b", str(of))
        if found:
            return int(found.group(1))
        of = of.__cause__
    return 0


def _shown(error: BaseException) -> str:
    cause = error.__cause__
    return f"{error}" if cause is None else f"{error}: {cause}"
