"""Microsoft's device SDK, unmodified: its client of either kind."""

from __future__ import annotations

import inspect
import re
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Coroutine, Mapping, Optional, Protocol, Type, overload

from . import _config
from ._errors import StateError
from ._log import logger
from ._updater import Report, Updater

if TYPE_CHECKING:
    import asyncio

#: Answers the methods that are not the updater's; for the asyncio client it may be a coroutine function.
OnMethodRequest = Callable[[Any], object]

# The last one first tells of a connection: setting one of the others may make it.
_HANDLERS = ("on_connection_state_change", "on_twin_desired_properties_patch_received", "on_method_request_received")


class _Attached:
    """What both kinds of client have in common. Everything that waits for the hub is on a thread of its own."""

    def __init__(self, client: Any, updater: Updater, on_method: Optional[OnMethodRequest]) -> None:
        self._client = client
        self._updater = updater
        self._ended = threading.Event()
        self._telling = threading.Lock()
        self._noticed: "set[str]" = set()
        updater._serve_by("an attached client")
        self._before = {name: getattr(client, name) for name in _HANDLERS}
        self._own_method = on_method or self._before["on_method_request_received"]
        # What the client is given; kept, because a bound method is another object each time.
        self._ours = {
            "on_method_request_received": self._method,
            "on_twin_desired_properties_patch_received": self._desired,
            "on_connection_state_change": self._connection,
        }
        # The SDK reads the twin for nobody, and asks for desired properties only when a handler is set.
        try:
            for name in _HANDLERS:
                setattr(client, name, self._ours[name])
        except BaseException:
            # Setting one connects, which may fail.
            self._ended.set()
            self._restore()
            updater._served_by = None
            raise
        self._connection_is()
        self._thread = threading.Thread(target=self._serve, name="twinflash reports", daemon=True)
        self._thread.start()

    # The SDK calls these; of its own kind are only the classes below.
    _method: Callable[[Any], object]
    _desired: Callable[[Any], object]
    _connection: Callable[[], object]

    def _call(self, name: str, *arguments: Any) -> Any:
        """Calls the client from the reports' thread, and waits."""
        return getattr(self._client, name)(*arguments)

    def _give_back(self) -> None:
        if self._ended.is_set():
            return
        self._ended.set()
        self._look()
        self._restore()
        if not self._updater.closed:
            self._updater.connected(False)
        if self._thread is not threading.current_thread():
            self._thread.join(2)
        self._updater._served_by = None

    def _restore(self) -> None:
        for name in _HANDLERS:
            if getattr(self._client, name) == self._ours[name]:
                try:
                    setattr(self._client, name, self._before[name])
                except Exception as error:
                    # Taking a handler away tells the hub so, which a client that is shut down or off line cannot.
                    logger().info("%s could not be given back: %s", name, error)

    def _response(self, request: Any, status: int, payload: Any) -> Any:
        from azure.iot.device import MethodResponse

        return MethodResponse.create_from_method_request(request, status, payload)

    def _unknown(self, request: Any) -> Any:
        return self._response(request, 404, f"There is no method {request.name!r}.")

    def _connection_is(self) -> None:
        # The SDK calls handlers on several threads: what is told last must be what was looked at last.
        with self._telling:
            if not self._ended.is_set() and not self._updater.closed:
                self._updater.connected(bool(self._client.connected))

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
            self._call("patch_twin_reported_properties", report.patch)
            return 204
        except Exception as error:
            logger().warning("the hub was not told: %s", _shown(error))
            return _status_of(error)

    def _read_twin(self) -> None:
        try:
            twin = self._call("get_twin")
        except Exception as error:
            logger().warning("the twin could not be read: %s", _shown(error))
            self._updater.twin_failed()
            return
        self._updater.handle_twin(twin, complete=True)

    def _look(self) -> None:
        """The SDK has one handler of each kind: whoever sets another takes ours away."""
        for name in _HANDLERS:
            if name not in self._noticed and getattr(self._client, name) != self._ours[name] and not self._ended.is_set():
                self._noticed.add(name)
                logger().error(
                    "%s was set after twinflash.attach, which no longer gets it: set it before, or give attach on_method", name
                )


class Attachment(_Attached):
    """An updater that is attached to a client. A context manager that detaches."""

    def detach(self) -> None:
        """Gives the client its handlers back; the updater stays. Does not touch a handler that was set meanwhile."""
        self._give_back()

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(
        self, type: Optional[Type[BaseException]], value: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.detach()

    def _method(self, request: Any) -> None:
        answer = self._updater.handle_method(request.name, request.payload)
        if answer is not None:
            self._client.send_method_response(self._response(request, answer.status, answer.payload))
        elif self._own_method is not None:
            self._own_method(request)
        else:
            self._client.send_method_response(self._unknown(request))

    def _desired(self, patch: Any) -> None:
        self._updater.handle_twin(patch, complete=False)
        chained = self._before["on_twin_desired_properties_patch_received"]
        if chained is not None:
            chained(patch)

    def _connection(self) -> None:
        self._connection_is()
        chained = self._before["on_connection_state_change"]
        if chained is not None:
            chained()


class AsyncAttachment(_Attached):
    """An updater that is attached to an asyncio client. An asynchronous context manager that detaches.

    The SDK calls coroutine handlers on an event loop of its own, not on the application's, and so do the handlers that are chained
    here; plain functions are called on a thread, as the SDK does.
    """

    _loop: "Optional[asyncio.AbstractEventLoop]" = None

    async def detach(self) -> None:
        """Gives the client its handlers back; the updater stays. Does not touch a handler that was set meanwhile."""
        import asyncio

        # The SDK's setters wait for the hub.
        await asyncio.get_running_loop().run_in_executor(None, self._give_back)

    async def __aenter__(self) -> "AsyncAttachment":
        return self

    async def __aexit__(
        self, type: Optional[Type[BaseException]], value: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        await self.detach()

    async def _method(self, request: Any) -> None:
        answer = await _on_a_thread(self._updater.handle_method, request.name, request.payload)
        if answer is not None:
            await self._client.send_method_response(self._response(request, answer.status, answer.payload))
        elif self._own_method is not None:
            await _chain(self._own_method, request)
        else:
            await self._client.send_method_response(self._unknown(request))

    async def _desired(self, patch: Any) -> None:
        self._updater.handle_twin(patch, complete=False)
        await _chain(self._before["on_twin_desired_properties_patch_received"], patch)

    async def _connection(self) -> None:
        self._connection_is()
        await _chain(self._before["on_connection_state_change"])

    def _serve(self) -> None:
        import asyncio

        # Of this thread's own: the application's loop may be busy, or gone before the updater is.
        self._loop = asyncio.new_event_loop()
        try:
            super()._serve()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    def _call(self, name: str, *arguments: Any) -> Any:
        assert self._loop is not None
        return self._loop.run_until_complete(super()._call(name, *arguments))


async def _on_a_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    import asyncio

    return await asyncio.get_running_loop().run_in_executor(None, call, *arguments)


async def _chain(handler: Optional[Callable[..., Any]], *arguments: Any) -> None:
    if inspect.iscoroutinefunction(handler):
        await handler(*arguments)
    elif handler is not None:
        await _on_a_thread(handler, *arguments)


class _Client(Protocol):
    """An ``azure.iot.device.IoTHubDeviceClient``."""

    def get_twin(self) -> Mapping[str, Any]: ...


class _AsyncClient(Protocol):
    """An ``azure.iot.device.aio.IoTHubDeviceClient``."""

    def get_twin(self) -> Coroutine[Any, Any, Any]: ...


@overload
def attach(client: _AsyncClient, updater: Updater, on_method: Optional[OnMethodRequest] = None) -> AsyncAttachment: ...
@overload
def attach(client: _Client, updater: Updater, on_method: Optional[OnMethodRequest] = None) -> Attachment: ...
def attach(client: Any, updater: Updater, on_method: Optional[OnMethodRequest] = None) -> "Attachment | AsyncAttachment":
    """Serves an updater by an ``IoTHubDeviceClient`` of azure-iot-device, the one for threads or the one for asyncio: its methods,
    its desired properties, with the twin read after each connect (which the SDK leaves out), its reports and their results.

    An updater has one client at a time. The handlers it finds are chained: what is not the updater's goes to them, and ``on_method`` takes the place of the one for
    methods. The SDK has one handler of each kind, so one that is set afterwards replaces ours; that is noticed and logged.

    As ever with the SDK, of either kind, setting a handler connects the client if it is not connected, and waits for the hub.
    """
    if not isinstance(updater, Updater):
        raise TypeError(f"updater must be a twinflash.Updater, not {type(updater).__name__}")
    if updater.closed:
        raise StateError("the updater is closed")
    needed = (*_HANDLERS, "patch_twin_reported_properties", "get_twin", "send_method_response")
    missing = [name for name in needed if not hasattr(client, name)]
    if missing:
        raise TypeError(f"client must be an azure.iot.device.IoTHubDeviceClient; {type(client).__name__} lacks {missing[0]}")
    kind = AsyncAttachment if inspect.iscoroutinefunction(client.get_twin) else Attachment
    if kind is Attachment or not callable(on_method):
        _config.plain("on_method", on_method)
    return kind(client, updater, on_method)


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
