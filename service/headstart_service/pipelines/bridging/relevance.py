"""The one measure of the game: how near a word is to the end that it is farther from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Game = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Anchor and target, unit length, shape (d,)."""
_ROWS = 1024
"""Rows that `exact_relevance` computes at once: 3 MB of products for 384 dimensions."""


def relevance(
    matrix: NDArray[np.float32], anchor: NDArray[np.float32], target: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Compute min(w·anchor, w·target) for each row w of `matrix` (n, d): -1 to 1, shape (n,).

    The formula is DESIGN.md's, section 5; `headstart.relevance` offers the same to clients.
    """
    return relevances(matrix, [(anchor, target)])[0]


def relevances(matrix: NDArray[np.float32], games: Sequence[Game]) -> list[NDArray[np.float32]]:
    """Compute `relevance` for each of `games`, in one matrix product for all of them.

    The last bits depend on the processor and on the other games, by less than `error_bound`.
    """
    ends = np.array([anchor for anchor, _ in games] + [target for _, target in games])
    # (n, d) @ (d, 2g) reads the matrix in memory order. The transposed product takes twice as
    # long for one game of 30,000 words.
    products = matrix @ ends.T
    scores = np.minimum(products[:, : len(games)], products[:, len(games) :])
    # Copies, so that a kept row does not keep the whole batch.
    return [np.ascontiguousarray(scores[:, game]) for game in range(len(games))]


def error_bound(dimension: int) -> float:
    """Return how far `relevances` may be from `exact_relevance`, whatever the order of its sums.

    Twice the bound of a float32 dot product of unit vectors (Higham, "Accuracy and Stability of
    Numerical Algorithms", 3.1). It leaves room for lengths that are not quite 1.
    """
    return dimension * float(np.finfo(np.float32).eps)


def exact_relevance(matrix: NDArray[np.float32], game: Game) -> NDArray[np.float64]:
    """Compute `relevance` in float64, with the same bits on every processor: shape (n,).

    The products of float32 numbers are exact, and numpy, not BLAS, adds them: in a fixed order.
    """
    ends = [end.astype(np.float64) for end in game]
    scores = np.empty(len(matrix), dtype=np.float64)
    for start in range(0, len(matrix), _ROWS):
        rows = matrix[start : start + _ROWS]
        anchor, target = ((rows * end).sum(axis=1) for end in ends)
        np.minimum(anchor, target, out=scores[start : start + len(rows)])
    return scores
