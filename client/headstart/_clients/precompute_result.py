"""The results of a bridging game, as `EagerPrecompute` returns them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from headstart._messages.results import Embedding, PrecomputeStatus, Results

T = TypeVar("T")


@dataclass
class PrecomputeResult:
    """A game's results; a part that does not exist (yet) is None: compute it live.

    Times are UTC. Embeddings have unit length.
    """

    game_id: str
    """As text, whatever type the game was started with."""
    status: PrecomputeStatus = PrecomputeStatus.PENDING
    started_at: datetime | None = None
    completed_at: datetime | None = None
    error: str | None = None
    """Why the run failed or was cancelled."""

    anchor_embedding: list[float] | None = None
    target_embedding: list[float] | None = None
    haiku_clues: list[str] | None = None
    haiku_embeddings: list[list[float]] | None = None
    """One per clue, in the clues' order."""
    lexical_bridge: list[str] | None = None
    """The vocabulary's words of highest relevance, best first."""
    lexical_embeddings: list[list[float]] | None = None
    """One per word of `lexical_bridge`, in its order."""
    null_samples: list[float] | None = None
    """Relevances (-1 to 1) of random bridges, ascending."""
    embedding_model: str | None = None
    """The model that made every embedding here. Scores need embeddings of the same model."""


def result_from(results: Results) -> PrecomputeResult:
    """Convert a run's results into the facade's."""
    result = PrecomputeResult(
        game_id=results.key,
        status=results.status,
        started_at=results.started_at,
        completed_at=results.completed_at,
        error=results.error,
    )
    if (parts := results.bridging) is not None:
        result.anchor_embedding = _listed(parts.anchor_embedding)
        result.target_embedding = _listed(parts.target_embedding)
        result.haiku_clues = _listed(parts.haiku_clues)
        result.haiku_embeddings = _vectors(parts.haiku_embeddings)
        result.lexical_bridge = _listed(parts.lexical_bridge)
        result.lexical_embeddings = _vectors(parts.lexical_embeddings)
        result.null_samples = _listed(parts.null_samples)
        result.embedding_model = parts.embedding_model
    return result


def _listed(values: tuple[T, ...] | None) -> list[T] | None:
    return None if values is None else list(values)


def _vectors(embeddings: tuple[Embedding, ...] | None) -> list[list[float]] | None:
    return None if embeddings is None else [list(each) for each in embeddings]
