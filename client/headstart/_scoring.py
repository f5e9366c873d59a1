"""Scores a caller's own words by the measure that the service's null samples were made with.

Pure Python, so that the client needs no numpy: five words of 384 numbers take well under a
millisecond.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import cast


def relevance(
    words: Sequence[float] | Sequence[Sequence[float]],
    anchor: Sequence[float],
    target: Sequence[float],
) -> float:
    """Return how near words are to both ends of a bridge.

    One word's relevance is its similarity to the farther end, `min(cos(word, anchor),
    cos(word, target))`; a set's relevance is the mean of its words.

    Args:
        words: One embedding, or a sequence of embeddings; any sequence type, a numpy array
            included. Embeddings need not have unit length.
        anchor: The anchor's embedding, as many numbers as each word's.
        target: The target's embedding, likewise.

    Returns:
        -1 to 1, higher is nearer.

    Raises:
        ValueError: No words; lengths that differ; a vector that is empty, zero or not finite.
    """
    if len(words) == 0:
        message = "relevance of no words: give at least one embedding"
        raise ValueError(message)
    # len() and indexing rather than truth: the truth of a numpy array is an error.
    embeddings = cast(
        "Sequence[Sequence[float]]", words if hasattr(words[0], "__len__") else [words]
    )
    to_anchor = _unit(anchor, "anchor")
    to_target = _unit(target, "target")
    if len(to_anchor) != len(to_target):
        message = f"anchor has {len(to_anchor)} dimensions, target {len(to_target)}"
        raise ValueError(message)
    scores = []
    for number, embedding in enumerate(embeddings):
        word = _unit(embedding, f"word {number}")
        if len(word) != len(to_anchor):
            message = f"word {number} has {len(word)} dimensions, anchor {len(to_anchor)}"
            raise ValueError(message)
        scores.append(min(_dot(word, to_anchor), _dot(word, to_target)))
    return math.fsum(scores) / len(scores)


def percentile(score: float, null_samples: Sequence[float]) -> float:
    """Return the share of null samples that a score beats; an equal sample counts half.

    The same as `scipy.stats.percentileofscore(null_samples, score, kind="mean")`.

    Args:
        score: A relevance, as `relevance()` gives it.
        null_samples: The relevances of random bridges, in any order.

    Returns:
        0 to 100 percent.

    Raises:
        ValueError: No samples; a NaN.
    """
    if len(null_samples) == 0:
        message = "percentile among no samples: give at least one"
        raise ValueError(message)
    if math.isnan(score) or any(map(math.isnan, null_samples)):
        message = "percentile of NaN: the score and every sample must be numbers"
        raise ValueError(message)
    below = sum(sample < score for sample in null_samples)
    equal = sum(sample == score for sample in null_samples)
    return 100.0 * (below + 0.5 * equal) / len(null_samples)


def _unit(vector: Sequence[float], name: str) -> list[float]:
    numbers = [float(value) for value in vector]
    length = math.hypot(*numbers)
    if not math.isfinite(length):
        message = f"{name} has a number that is not finite"
        raise ValueError(message)
    if length == 0:
        message = f"{name} has no direction: it is empty or all zeros"
        raise ValueError(message)
    return [value / length for value in numbers]


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    # By rounding, a cosine may be slightly above 1.
    return max(-1.0, min(1.0, math.fsum(map(operator.mul, left, right))))
