"""When calls of a language model go into batches, and when these are looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRules:
    """When calls go into batches. Durations in seconds."""

    least: float = 3600.0 - 60.0
    """A run that is needed sooner calls directly: most batches end within an hour.

    A run that is needed in an hour exactly has a minute until it calls.
    """
    margin: float = 600.0
    """So long before the need a call is made directly, or by the step's time if that is longer."""
    first: float = 1.0
    """The first pause between polls."""
    longest: float = 300.0
    """The longest pause between polls."""
    grace: float = 5.0
    """How long a batch goes on without an owner: a replaced run, or its next worker, may want it.
    """
