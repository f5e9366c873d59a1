"""What a step's work costs: CPU seconds and tokens of language models.

A try of a step runs with a meter of its own as the context's. A provider
that computes for several steps at once adds each caller's share to its meter with `spend`.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Final


@dataclass(slots=True)
class CostMeter:
    """The cost of one step, all its tries together."""

    cpu_seconds: float = 0.0
    llm_tokens: int = 0
    """Read and written, of every request that was answered, without those of a prompt cache."""
    waited: float = 0.0
    """Seconds that its calls have waited for their turn at a provider."""

    def add(self, other: CostMeter) -> None:
        """Add every cost of another meter."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


METER: Final[ContextVar[CostMeter | None]] = ContextVar("headstart_meter", default=None)
"""The meter of the step that runs in this context."""


def spend(*, cpu_seconds: float = 0.0, llm_tokens: int = 0, waited: float = 0.0) -> None:
    """Add to the meter of the step that runs in this context; does nothing outside of one."""
    meter = METER.get()
    if meter is not None:
        meter.cpu_seconds += cpu_seconds
        meter.llm_tokens += llm_tokens
        meter.waited += waited
