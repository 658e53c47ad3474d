"""The fixtures are in support.py, where other tests find them too."""

from support import firmware, hub, registry  # noqa: F401
