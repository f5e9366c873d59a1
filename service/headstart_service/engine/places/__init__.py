"""Where a step's function runs: on the event loop, in a thread, in a process, or on Ray."""

from __future__ import annotations

from .places import PlaceRules, Places
from .rules import refuse_unreachable

__all__ = ["PlaceRules", "Places", "refuse_unreachable"]
