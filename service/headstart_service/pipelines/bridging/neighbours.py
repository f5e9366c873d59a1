"""The lexical bridge: the words of the whole vocabulary that lie best between two others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ...sdk import StepFailed
from .morphology import Exclusions
from .relevance import Game, error_bound, exact_relevance

_GROWTH = 8


def neighbours(
    relevances: NDArray[np.float32],
    matrix: NDArray[np.float32],
    game: Game,
    words: Sequence[str],
    anchor: str,
    target: str,
    count: int,
) -> list[int]:
    """Find the `count` words of highest relevance: their indices, best first, of equals the first.

    `words` have the vectors `matrix`, shape (n, d). `relevances`, shape (n,), only shortlists them:
    `exact_relevance` to `game` decides, so the words depend on neither processor nor neighbours.
    Left out, from the best word down: `anchor`, `target`, their variants (each word's of a
    phrase), and variants of words already taken.

    Raises StepFailed when the vocabulary has too few words left.
    """
    excluded = Exclusions((anchor, target))
    found: list[int] = []
    for index in _descending(relevances, matrix, game, first=8 * count + 32):
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


def _descending(
    scores: NDArray[np.float32], matrix: NDArray[np.float32], game: Game, first: int
) -> Iterator[int]:
    """Yield all places, the highest exact relevance first, of equals the lowest place.

    Computes and sorts only some more than the `first` best, and ever more when those do not do.
    """
    size, done = len(scores), 0
    error = error_bound(matrix.shape[1])
    wanted = first
    while done < size:
        best, sure = np.arange(size), -np.inf
        if wanted < size:
            threshold = np.partition(scores, size - wanted)[size - wanted]
            # Each word that is left out is exactly less than `sure`.
            sure = float(threshold) - error
            best = np.flatnonzero(scores >= sure - error)
        exact = exact_relevance(matrix[best], game)
        order = np.argsort(-exact, kind="stable")
        order = order[: np.count_nonzero(exact >= sure)]
        yield from best[order[done:]].tolist()
        done = len(order)
        wanted *= _GROWTH
