"""The null distribution: how relevant a bridge of random words is to a game."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from ...sdk import Ratings, StepFailed


def null_samples(
    ratings: Ratings,
    excluded_indices: Collection[int],
    clue_count: int,
    count: int,
    seed: int,
) -> NDArray[np.float64]:
    """The relevances of `count` random bridges, ascending, float64, shape (count,).

    Each is the mean of the exact relevances of `clue_count` distinct words, every such set of the
    vocabulary without `excluded_indices` as likely as any other. The words that are drawn depend
    on the seed and on the sizes alone.

    Raises StepFailed when too few words are left to draw from.
    """
    excluded = sorted(set(excluded_indices))
    size = len(ratings) - len(excluded)
    if size < clue_count:
        raise StepFailed(
            f"the vocabulary has {size} words besides anchor and target, too few to draw "
            f"{clue_count} from",
            retry=False,
        )
    random = np.random.Generator(np.random.PCG64(seed))
    drawn = draw_distinct(random, size, clue_count, count)
    for index in excluded:  # ascending: each opens a gap at its own place
        drawn += drawn >= index
    samples: NDArray[np.float64] = ratings.of(drawn).mean(axis=1, dtype=np.float64)
    samples.sort()
    return samples


def draw_distinct(
    random: np.random.Generator, size: int, width: int, rows: int
) -> NDArray[np.int64]:
    """`rows` sets of `width` distinct numbers below `size`, each set equally likely: (rows, width).

    Floyd's algorithm (Bentley and Floyd, "A sample of brilliance", CACM 30(9), 1987), on all rows
    at once. It needs no second draw however small `size` is, unlike redrawing duplicates.
    """
    drawn = np.empty((rows, width), dtype=np.int64)
    for column in range(width):
        highest = size - width + column
        choice = random.integers(0, highest, size=rows, endpoint=True)
        taken = (drawn[:, :column] == choice[:, None]).any(axis=1)
        # `highest` is new to this column, so no row can have it yet.
        drawn[:, column] = np.where(taken, highest, choice)
    return drawn
