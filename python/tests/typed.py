"""An application as typed ones are written: looked at by mypy and pyright, both strict, and never run."""

from datetime import timedelta
from pathlib import Path
from typing import List, Optional, Union

from azure.iot.device import IoTHubDeviceClient
from azure.iot.device.aio import IoTHubDeviceClient as AsyncClient
from typing_extensions import assert_never, assert_type

import twinflash


class Flash:
    """An installer without a base class."""

    restart = "system"

    def inspect(self) -> str:
        return "old"

    def begin(self, image: twinflash.Image, resume_at: int) -> int:
        return resume_at if image.size else 0

    def write(self, offset: int, data: bytes) -> None: ...
    def sync(self) -> int:
        return 0

    def finish(self) -> None: ...
    def activate(self) -> None: ...
    def confirm(self) -> None: ...
    def rollback(self) -> None: ...
    def abort(self) -> None: ...


def said(event: twinflash.Event) -> str:
    """Every kind of event there is."""
    if isinstance(event, (twinflash.Accepted, twinflash.Verified)):
        return "request"
    if isinstance(event, twinflash.PhaseChanged):
        return str(event.phase is twinflash.Phase.APPLYING)
    if isinstance(event, twinflash.Progress):
        return f"{event.bytes / event.total:%}" if event.total else f"{event.bytes}"
    if isinstance(event, (twinflash.Retry, twinflash.Refused)):
        return event.failure.code
    if isinstance(event, twinflash.Waiting):
        return f"{event.on} before {event.before}"
    if isinstance(event, twinflash.Ended):
        event.outcome.raise_for_failure()
        return event.outcome.kind
    if isinstance(event, (twinflash.Warned, twinflash.HubRefused)):
        return event.message
    if isinstance(event, (twinflash.Connected, twinflash.Disconnected, twinflash.WaitingForClock, twinflash.KeysRotated)):
        return "connection, keys"
    assert_never(event)


def restarts(restart: Union[str, List[str]]) -> None: ...


def threads(client: IoTHubDeviceClient, updater: twinflash.Updater) -> Optional[twinflash.Outcome]:
    with twinflash.attach(client, updater, on_method=print) as attachment:
        assert_type(attachment, twinflash.Attachment)
        for event in updater.events():
            said(event)
    return updater.wait(timedelta(seconds=5))


async def coroutines(client: AsyncClient, updater: twinflash.Updater) -> None:
    async with twinflash.attach(client, updater) as attachment:
        assert_type(attachment, twinflash.AsyncAttachment)
        async for event in updater.events():
            said(event)


def by_hand(updater: twinflash.Updater) -> None:
    answer = updater.handle_method("firmwareUpdate", {"fwPackageUri": "https://example.com"})
    if answer is not None:
        assert_type(answer.status, int)
    for outbound in updater.reports():
        if isinstance(outbound, twinflash.ReadTwin):
            updater.handle_twin({"desired": {}, "reported": {}}, complete=True)
        else:
            updater.report_done(outbound.id, 204)
    status = updater.status()
    assert_type(status.outcome, Optional[twinflash.Outcome])


def main() -> None:
    if twinflash.guard(Path("state")).kind == "rolled-back":
        return
    policy = twinflash.Policy(retry_time=timedelta(hours=1), confirm=["/usr/bin/check"], max_size=1 << 30)
    trust = twinflash.Trust(keys=[Path("owner.pem")], threshold=1)
    slots = twinflash.SlotsInstall({"a": Path("/dev/a"), "b": "/dev/b"}, {"link": Path("/boot/current")}, restart=["reboot"])
    for install in (twinflash.FileInstall(Path("app.bin")), slots, twinflash.CommandInstall(["rauc", "install", "{image}"]), Flash()):
        with twinflash.Updater(
            state_dir=Path("state"), install=install, policy=policy, trust=trust, on_event=print, on_restart=restarts
        ) as updater:
            print(updater)
            with twinflash.Device("HostName=…", updater, on_method=lambda name, payload: (200, [name, payload])) as device:
                device.wait(1.5)
