"""Items of a step that runs once for each item of a list, as a run's record keeps them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeptItems:
    """The items of one step that have ended, before the step has."""

    basis: str
    """A digest of the list, and of all else that its items are given."""
    chunks: int
    """How many writes they came with."""
    fragment: bytes
    """The items, as a piece of GetResultsResponse."""


@dataclass(frozen=True, slots=True)
class ItemsChunk:
    """Items that ended together, and how far their step is."""

    step: str
    basis: str
    """As in KeptItems: what was kept with another basis goes."""
    number: int
    """Which chunk of this basis it is, from 1; a repetition replaces it."""
    fragment: bytes
    """The items, as a piece of GetResultsResponse; empty if none has ended."""
    report: bytes
    """The step's report, as another."""
