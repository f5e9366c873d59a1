"""For which run the step in this context works, for providers that share out what they have."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class StepCaller:
    """The run of a step."""

    namespace: str = ""
    claimed_us: int = 0
    """When a worker took it. Runs are taken in the order of need, so this is their order."""


CALLER: Final[ContextVar[StepCaller]] = ContextVar("headstart_caller", default=StepCaller())  # noqa: B039  # frozen
"""The run of the step that runs in this context."""
