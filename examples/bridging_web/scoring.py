"""Score all bridges by one measure, and report where the parts came from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from headstart import percentile, relevance

from .live import Vector
from .submit import Part


class NoScore(Exception):
    """Nothing can be scored: the ends' embeddings, or the null samples, could not be had."""


def scored(
    clues: Sequence[str], embeddings: Sequence[Vector], parts: Mapping[str, Part]
) -> dict[str, Any]:
    """Return the answer's numbers. Raises NoScore with the reason."""
    for needed in ("embed_endpoints", "null_samples"):
        if parts[needed].source == "failed":
            raise NoScore(f"{needed}: {parts[needed].error}")
    ends = parts["embed_endpoints"].value
    anchor, target = ends["anchor_embedding"], ends["target_embedding"]
    null: Sequence[float] = parts["null_samples"].value

    def bridge(words: Sequence[str], vectors: Sequence[Vector]) -> dict[str, Any]:
        each = [relevance(vector, anchor, target) for vector in vectors]
        score = math.fsum(each) / len(each)  # equals relevance(vectors, …) to the last bit
        rows = [{"word": w, "relevance": r} for w, r in zip(words, each, strict=True)]
        return {"score": score, "percentile": percentile(score, null), "words": rows}

    lexical = parts["lexical_bridge"]
    return {
        "you": bridge(clues, embeddings),
        "lexical": {"error": lexical.error}
        if lexical.source == "failed"
        else bridge(lexical.value["lexical_bridge"], lexical.value["lexical_embeddings"]),
        "haiku": _haiku(parts, bridge),
        "null_samples": list(null),
        "embedding_model": ends["embedding_model"],
    }


def _haiku(parts: Mapping[str, Part], bridge: Any) -> dict[str, Any] | None:
    """Return the score of Haiku's bridge; None in a game without Haiku."""
    if "haiku_bridge" not in parts:
        return None
    for step in ("haiku_bridge", "haiku_embeddings"):
        if parts[step].source == "failed":
            return {"error": parts[step].error}
    scores: dict[str, Any] = bridge(parts["haiku_bridge"].value, parts["haiku_embeddings"].value)
    return scores
