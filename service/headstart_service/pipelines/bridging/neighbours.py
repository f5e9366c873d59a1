"""The lexical bridge: the words of the whole vocabulary that lie best between two others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ...sdk import StepFailed
from .morphology import Exclusions

_GROWTH = 8


def neighbours(
    relevances: NDArray[np.float32], words: Sequence[str], anchor: str, target: str, count: int
) -> list[int]:
    """The indices of the `count` words of highest relevance, best first; of equals the first.

    `relevances` rates all `words`, shape (n,). Left out, from the best word down: `anchor`,
    `target`, their variants (each word's of a phrase), and variants of words already taken.

    Raises StepFailed when the vocabulary has too few words left.
    """
    excluded = Exclusions((anchor, target))
    found: list[int] = []
    for index in _descending(relevances, first=8 * count + 32):
        word = words[index]
        if excluded.excludes(word):
            continue
        found.append(index)
        if len(found) == count:
            return found
        excluded.add(word)
    raise StepFailed(
        f"the vocabulary of {len(words)} words has only {len(found)} that can bridge "
        f"these two, and {count} were asked for",
        retry=False,
    )


def _descending(scores: NDArray[np.float32], first: int) -> Iterator[int]:
    """The places of all scores, highest first, of equals the lowest place.

    Sorts only the `first` best, and ever more when those do not do.
    """
    size, done = len(scores), 0
    wanted = first
    while done < size:
        if wanted < size:
            # With every score that equals the last wanted one, so that equals stay in order.
            threshold = np.partition(scores, size - wanted)[size - wanted]
            best = np.flatnonzero(scores >= threshold)
        else:
            best = np.arange(size)
        order = best[np.argsort(-scores[best], kind="stable")]
        yield from order[done:].tolist()
        done = len(order)
        wanted *= _GROWTH
