"""Holds what `get_or_compute` gives: each step's value, and its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from headstart._messages.results import Results


class Source(StrEnum):
    """Where a value came from. Each equals its value: `sources[step] == "ready"`."""

    READY = "ready"
    """It was in the service's first answer."""
    WAITED = "waited"
    """The service gave it later, before a computation here ended."""
    LIVE = "live"
    """It was computed here, by its fallback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """The values of all steps that have a fallback, in that order; fewer only in `Incomplete`."""

    values: Mapping[str, Any]
    """By step. Of a custom pipeline as in `Results.custom`; of bridging:

    - embed_endpoints: a dict of anchor_embedding, target_embedding and embedding_model,
    - lexical_bridge: a dict of lexical_bridge and lexical_embeddings,
    - null_samples: a tuple of floats; haiku_bridge: of str; haiku_embeddings: of embeddings.

    A live value is what its fallback returned.
    """
    sources: Mapping[str, Source]
    """By step."""
    seconds: Mapping[str, float]
    """By step: how long after the call its value was there."""
    reasons: Mapping[str, str]
    """By step: why it came, or did not come, from where. For people: do not rely on the text."""
    results: Results | None
    """The service's last answer; None if there was none."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the steps without a value: none, except in `Incomplete`."""
        return tuple(step for step in self.reasons if step not in self.values)
