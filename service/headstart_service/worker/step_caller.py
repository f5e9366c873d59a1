"""For which run the step in this context works, for providers that share out what they have."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from .hurry import Hurry


@dataclass(frozen=True, slots=True)
class StepCaller:
    """The run of a step."""

    namespace: str = ""
    run: str = ""
    """Its run, by a name that no other run of the worker has; empty outside of a step."""
    taken_us: int = 0
    """When a worker took it, by the store's clock."""
    declared_at: float = 0.0
    """When its start says that it is needed, by the monotonic clock; 0 if it does not say so."""
    key: str = ""
    """The key of the run, without its namespace."""
    run_id: str = ""
    attempt: int = 0
    """Which claim of the run this is."""
    step: str = ""
    fresh: bool = False
    """Whether the run takes nothing over from earlier ones."""
    declared_us: int = 0
    """As `declared_at`, by the store's clock."""
    hurry: Hurry = field(default_factory=Hurry, compare=False)
    """Set once a caller waits for the step."""

    @property
    def order_us(self) -> int:
        """When it is needed, else when a worker took it: the order of calls."""
        return self.taken_us if self.hurry.is_set else self.declared_us or self.taken_us

    @property
    def needed_at(self) -> float:
        """When it is needed, by the monotonic clock; 0 for at once."""
        return 0.0 if self.hurry.is_set else self.declared_at


CALLER: Final[ContextVar[StepCaller]] = ContextVar("headstart_caller", default=StepCaller())  # noqa: B039  # frozen
"""The run of the step that runs in this context."""
