"""The one measure of the game: how near a word is to the end that it is farther from."""

from __future__ import annotations

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

    The formula is DESIGN.md's, section 5; `headstart.relevance` offers the same to clients. The
    last bits depend on the processor, by less than `error_bound`.
    """
    # (n, d) @ (d, 2) reads the matrix in the order in which it lies in memory; the other way round
    # takes twice as long.
    products = matrix @ np.array([anchor, target]).T
    relevances: NDArray[np.float32] = np.minimum(products[:, 0], products[:, 1])
    return relevances


def error_bound(dimension: int) -> float:
    """Return how far `relevance` may be from `exact_relevance`, whatever the order of its sums.

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
