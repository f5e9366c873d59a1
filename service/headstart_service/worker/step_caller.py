"""For which run the step in this context works, for providers that share out what they have."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class StepCaller:
    """The run of a step."""

    namespace: str = ""
    run: str = ""
    """Its run, by a name that no other run of the worker has; empty outside of a step."""
    order_us: int = 0
    """When it is needed, else when a worker took it: the order of calls."""
    needed_at: float = 0.0
    """When it is needed, by the monotonic clock; 0 for at once."""
    key: str = ""
    """The key of the run, without its namespace."""
    run_id: str = ""
    attempt: int = 0
    """Which claim of the run this is."""


CALLER: Final[ContextVar[StepCaller]] = ContextVar("headstart_caller", default=StepCaller())  # noqa: B039  # frozen
"""The run of the step that runs in this context."""
