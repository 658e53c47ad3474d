"""What is logged: under ``twinflash``."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from . import _native

if TYPE_CHECKING:
    import logging


def logger() -> logging.Logger:
    """The logger. Asked for when it is needed: to import ``logging`` is a sixth of the time that this package takes, and it was
    not asked for by those who only look at a configuration or call the guard."""
    import logging

    found = logging.getLogger("twinflash")
    if not found.handlers:
        # Without logging set up by the application, nothing is printed.
        found.addHandler(logging.NullHandler())
    return found


def listen() -> None:
    """From now on what the core logs goes there, too: what a command printed that succeeded, under
    ``twinflash.command``. (What one that fails printed comes as warnings among the events.)"""
    reader = _native.lines()
    if reader is not None:
        logger()
        threading.Thread(target=_relay, args=(reader,), name="twinflash log", daemon=True).start()


def _relay(reader: _native.Reader) -> None:
    import logging

    while True:
        line = reader.next(None)
        if not line:
            return
        _, level, target, text = line
        logging.getLogger(target.replace("::", ".")).log(level, "%s", text)
