"""Results for callers' own tests, whole or with the gaps that a caller must cope with.

    results = completed_results("game-1", missing=["haiku_bridge", "haiku_embeddings"])
    assert results.bridging.haiku_clues is None

The vectors are made up: of unit length, in the right shapes, the same every time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from headstart._eager import PrecomputeResult, result_from
from headstart._results import (
    BridgingResults,
    Embedding,
    PrecomputeStatus,
    RecipientType,
    Results,
    StepReport,
    StepState,
)

_STARTED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_PARTS_OF_STEPS: Final = {
    "embed_endpoints": ("anchor_embedding", "target_embedding"),
    "haiku_bridge": ("haiku_clues",),
    "haiku_embeddings": ("haiku_embeddings",),
    "lexical_bridge": ("lexical_bridge", "lexical_embeddings"),
    "null_samples": ("null_samples",),
}
_HAIKU_STEPS: Final = frozenset({"haiku_bridge", "haiku_embeddings"})


def completed_results(
    key: str = "game-1",
    *,
    recipient_type: RecipientType | str = RecipientType.HAIKU,
    missing: Iterable[str] = (),
    clue_count: int = 5,
    null_sample_count: int = 100,
    dimensions: int = 384,
) -> Results:
    """Build what `PrecomputeClient.get_results` returns for a completed bridging game.

    Args:
        key: The run's key.
        recipient_type: For "human" there are no haiku steps.
        missing: Steps to show as failed, with their parts None.
        clue_count: Words in each bridge.
        null_sample_count: How many null samples.
        dimensions: The length of every embedding.

    Raises:
        ValueError: `missing` names a step that this game does not have.
    """
    steps = [
        name
        for name in sorted(_PARTS_OF_STEPS)
        if name not in _HAIKU_STEPS or RecipientType(recipient_type) is RecipientType.HAIKU
    ]
    failed = set(missing)
    if unknown := failed.difference(steps):
        message = f"no such step: {', '.join(sorted(unknown))}; there are {', '.join(steps)}"
        raise ValueError(message)
    embeddings = tuple(_embedding(number, dimensions) for number in range(2 + clue_count))
    whole = BridgingResults(
        anchor_embedding=embeddings[0],
        target_embedding=embeddings[1],
        haiku_clues=tuple(f"clue{number}" for number in range(clue_count)),
        haiku_embeddings=embeddings[2:],
        lexical_bridge=tuple(f"word{number}" for number in range(clue_count)),
        lexical_embeddings=embeddings[2:],
        null_samples=tuple(number / null_sample_count / 2 for number in range(null_sample_count)),
        embedding_model="made-up",
    )
    absent = failed.union(_PARTS_OF_STEPS).difference(set(steps) - failed)
    return Results(
        namespace="default",
        key=key,
        pipeline="bridging",
        revision=1,
        status=PrecomputeStatus.COMPLETED,
        created_at=_STARTED_AT,
        started_at=_STARTED_AT,
        completed_at=_STARTED_AT + timedelta(seconds=2),
        expires_at=_STARTED_AT + timedelta(minutes=30, seconds=2),
        error=None,
        steps={
            name: StepReport(
                state=StepState.FAILED if name in failed else StepState.COMPLETED,
                error="made to fail" if name in failed else None,
                elapsed=timedelta(seconds=1),
                attempts=1,
            )
            for name in steps
        },
        bridging=replace(
            whole, **{part: None for step in absent for part in _PARTS_OF_STEPS[step]}
        ),
        custom=None,
    )


def completed_precompute_result(
    game_id: str = "game-1",
    *,
    recipient_type: RecipientType | str = RecipientType.HAIKU,
    missing: Iterable[str] = (),
    clue_count: int = 5,
    null_sample_count: int = 100,
    dimensions: int = 384,
) -> PrecomputeResult:
    """Build what `EagerPrecompute.get_precomputed_results` returns; as `completed_results`."""
    return result_from(
        completed_results(
            game_id,
            recipient_type=recipient_type,
            missing=missing,
            clue_count=clue_count,
            null_sample_count=null_sample_count,
            dimensions=dimensions,
        )
    )


def _embedding(number: int, dimensions: int) -> Embedding:
    """Return a unit vector along one axis, another one for each number."""
    return tuple(1.0 if axis == number % dimensions else 0.0 for axis in range(dimensions))
