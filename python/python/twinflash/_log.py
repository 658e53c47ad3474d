"""What is logged: under ``twinflash``."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
