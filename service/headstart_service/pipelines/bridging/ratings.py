"""How relevant each word is to a game: rated roughly for all, exactly for those that are needed.

A rough rating comes with a bound of its error. So whatever is decided is decided by exact numbers:
it depends neither on the processor nor on the games that are rated together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from .integer_products import LEVELS, MATRIX_LEVELS, IntegerProducts
from .relevance import Game, error_bound, exact_relevance, relevance

_GROWTH = 8
_PIECE = 128
"""Rows of one product of `Ratings`: 200 kB for 384 dimensions."""
_ROWS = 2048
"""Rows that are rounded at once: 3 MB for 384 dimensions."""
_ROUNDING = 1e-5
"""Of an estimate in float32, for vectors of length 1: many times what it can be."""
_MOST = 2.0**40
"""Lengths of ends above it, and below 1 / it, leave float32's range in a product."""
_LEAST_LENGTH = np.float32(1e-15)
_LEAST_SCALE = np.float32(2.0**-120)
"""A row of smaller numbers is rounded to zeros: float32 has not enough digits for its scale."""


class Ratings:
    """The relevances of all words to one game, of which few are computed exactly."""

    def __init__(
        self,
        matrix: NDArray[np.float32],
        game: Game,
        rough: NDArray[np.float32],
        lengths: NDArray[np.float32],
        error: Callable[[], NDArray[np.float32]] | None,
    ) -> None:
        """Take rough relevances, shape (n,), for `matrix` (n, d), each within `error()`, (n,).

        No row is longer than its number of `lengths`, shape (n,). With `error` None all are
        computed exactly.
        """
        self._matrix = matrix
        self._game = game
        self._rough = rough
        self._lengths = lengths
        self._error = error

    def __len__(self) -> int:
        """How many words are rated."""
        return len(self._rough)

    def of(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute the relevances of some words, of the shape of `places`: exact to 1e-6."""
        return self._relevance(places.ravel()).reshape(places.shape)

    def descending(self, first: int) -> Iterator[int]:
        """Yield all places, the highest exact relevance first, of equals the lowest place.

        Computes and sorts only some more than the `first` best, and ever more when those do not do.
        """
        size, done = len(self), 0
        wanted = size if self._error is None else first
        while done < size:
            best, sure = self._best(wanted) if wanted < size else (np.arange(size), -np.inf)
            exact = exact_relevance(self._matrix[best], self._game)
            order = np.argsort(-exact, kind="stable")
            order = order[: np.count_nonzero(exact >= sure)]
            yield from best[order[done:]].tolist()
            done = len(order)
            wanted *= _GROWTH

    def _best(self, wanted: int) -> tuple[NDArray[np.int64], float]:
        """Return places, ascending, and a limit that all others are exactly less than.

        At least `wanted` of them reach the limit.
        """
        assert self._error is not None
        near, sure = _leading(self._rough, self._error(), wanted)
        # Of hundreds, a product in float32 leaves few more than are wanted.
        length = np.float32(_lengths(np.stack(self._game)).max())
        bound = np.float32(error_bound(self._matrix.shape[1])) * length * self._lengths[near]
        kept, sure_again = _leading(self._relevance(near), bound, wanted)
        return near[kept], max(sure, sure_again)

    def _relevance(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute relevances piece by piece: a process maps memory for a large block each time."""
        found = np.empty(len(places), np.float32)
        for start in range(0, len(places), _PIECE):
            piece = slice(start, start + _PIECE)
            found[piece] = relevance(self._matrix[places[piece]], *self._game)
        return found


def _leading(
    scores: NDArray[np.float32], error: NDArray[np.float32], wanted: int
) -> tuple[NDArray[np.int64], float]:
    """Return the places that can be among the `wanted` best, and what all others are less than."""
    lowest = np.partition(scores - error, len(scores) - wanted)[len(scores) - wanted]
    return np.flatnonzero(scores + error >= lowest), float(lowest)


class Rater:
    """Rates the words of one vocabulary. Blocks; for one thread at a time."""

    def __init__(self, matrix: NDArray[np.float32]) -> None:
        """Round `matrix`, shape (n, d), to bytes: 0.2 s for 30,000 words."""
        self._matrix = matrix
        rounded = np.empty(matrix.shape, np.int8)
        self._scale, self._lost, self._lengths = np.empty((3, len(matrix)), np.float32)
        for start in range(0, len(matrix), _ROWS):
            rows = slice(start, start + _ROWS)
            each = _rounded(matrix[rows], MATRIX_LEVELS)
            rounded[rows], self._scale[rows], self._lost[rows] = each
            self._lengths[rows] = _lengths(matrix[rows]) + self._lost[rows]
        self._products = IntegerProducts(rounded)

    def rate(self, games: Sequence[Game]) -> list[Ratings]:
        """Rate all words for each game, in one product; reads a quarter of the matrix's bytes."""
        ends = np.array([anchor for anchor, _ in games] + [target for _, target in games])
        extreme = _extreme(ends)
        ends[extreme] = 0
        rounded, scale, lost = _rounded(ends, LEVELS)
        products, lengths = self._products.of(rounded), _lengths(ends)
        count, rated = len(games), []
        for at, game in enumerate(games):
            pair = [at, at + count]
            if extreme[pair].any():
                nothing = np.zeros_like(self._scale)
                rated.append(Ratings(self._matrix, game, nothing, self._lengths, None))
                continue
            anchor, target = (products[row].astype(np.float32) * scale[row] for row in pair)
            rough = np.minimum(anchor, target, out=anchor)
            rough *= self._scale
            error = partial(self._error, float(lengths[pair].max()), float(lost[pair].max()))
            rated.append(Ratings(self._matrix, game, rough, self._lengths, error))
        return rated

    def _error(self, length: float, lost: float) -> NDArray[np.float32]:
        """Bound the error for ends of at most `length`, rounded by at most `lost`.

        |w·e - w'·e'| <= |w - w'| |e| + |w'| |e - e'|, by Cauchy and Schwarz, and |w'| is at most
        |w| + |w - w'|.
        """
        return self._lost * np.float32(length) + self._lengths * np.float32(
            lost + _ROUNDING * length
        )


def _rounded(
    rows: NDArray[np.float32], levels: int
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
    """Round each row to a multiple of whole numbers up to `levels`.

    Returns these numbers, what each row's are multiplied by, and the length of what is lost.
    """
    largest = np.abs(rows).max(axis=1, initial=0)
    scale = np.where(largest > _LEAST_SCALE, largest / levels, 1).astype(np.float32)
    whole = np.rint(rows / scale[:, None]).clip(-levels, levels)
    return whole.astype(np.int8), scale, _lengths(rows - whole * scale[:, None])


def _lengths(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bound the length of each row, also where the squares of its numbers are none in float32."""
    lengths: NDArray[np.float32] = np.linalg.norm(rows, axis=1)
    return lengths + _LEAST_LENGTH


def _extreme(rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which rows are much longer or shorter than 1; zeros are not."""
    largest = np.abs(rows).max(axis=1, initial=0)
    extreme: NDArray[np.bool_] = (largest > _MOST) | ((largest > 0) & (largest < 1 / _MOST))
    return extreme
