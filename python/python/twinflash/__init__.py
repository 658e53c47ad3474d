"""Firmware updates for devices on Azure IoT Hub: the tutorials' update, made real.

A back end asks for an update by a direct method or through desired properties; the device downloads, verifies and applies it,
survives power cuts at any point, and reports every step in its twin.

With a client of azure-iot-device::

    updater = twinflash.Updater(state_dir="/var/lib/fw", contract="iothub-dm", current_version="1.0.0",
                                install=twinflash.FileInstall("/opt/app/app.bin"))
    twinflash.attach(client, updater)

Without an SDK::

    with twinflash.Device(connection_string, updater) as device:
        device.wait()

What happens is logged under ``twinflash``.
"""

from ._attach import AsyncAttachment, Attachment, attach
from ._config import CommandInstall, FileInstall, Http, Image, Installer, Policy, SlotsInstall, Trust
from ._device import Device
from ._errors import (
    BusyError,
    ConfigError,
    EndedError,
    InstallError,
    LockedError,
    RequestError,
    StateError,
    TransferError,
    TrustError,
    TwinflashError,
    VerificationError,
)
from ._events import (
    Accepted,
    Connected,
    Disconnected,
    Ended,
    Event,
    Failure,
    HubRefused,
    KeysRotated,
    Outcome,
    Phase,
    PhaseChanged,
    Progress,
    Refused,
    Retry,
    Retrying,
    Status,
    Verified,
    Waiting,
    WaitingForClock,
    Warned,
)
from ._guard import Guarded, guard
from ._native import __version__
from ._updater import Answer, Events, Outbound, ReadTwin, Report, Updater

__all__ = [
    "Accepted", "Answer", "AsyncAttachment", "Attachment", "BusyError", "CommandInstall", "ConfigError", "Connected", "Device", "Disconnected",
    "Ended", "EndedError", "Event", "Events", "Failure", "FileInstall", "Guarded", "Http", "HubRefused", "Image", "InstallError",
    "Installer", "KeysRotated", "LockedError", "Outbound", "Outcome", "Phase", "PhaseChanged", "Policy", "Progress", "ReadTwin", "Refused",
    "Report", "RequestError", "Retry", "Retrying", "SlotsInstall", "StateError", "Status", "TransferError", "Trust", "TrustError",
    "TwinflashError", "Updater", "VerificationError", "Verified", "Waiting", "WaitingForClock", "Warned", "__version__", "attach", "guard",
]  # fmt: skip
