"""How a worker behaves, as its settings say."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..values.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRules:
    """How a worker behaves. Durations in seconds."""

    name: str
    """Unique among all workers of a store."""
    concurrency: int
    """How many runs compute at once."""
    runs: int
    """How many runs it holds at once, with those that only wait for others."""
    lease: float
    """How long a run stays its own without renewal."""
    drain: float
    """How long runs may go on after `stop`."""
    host: str = ""
    """The machine that operators see it on."""
    version: str = ""
    limits: Limits = field(default_factory=Limits)
    """How much steps may return."""
