"""How far a running step has come, as it reports itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """One report."""

    fraction: float | None = None
    """The part that is done, 0 to 1; None where that is not known."""
    message: str = ""
    """What the step does now, for people."""
