"""The lexical bridge: the words of the whole vocabulary that lie best between two others."""

from __future__ import annotations

from collections.abc import Sequence

from ...sdk import Ratings, StepFailed
from .morphology import Exclusions


def neighbours(
    ratings: Ratings,
    words: Sequence[str],
    anchor: str,
    target: str,
    count: int,
) -> list[int]:
    """Find the `count` words of highest relevance: their indices, best first, of equals the first.

    Exact relevances decide, so the words depend on neither processor nor neighbours. Left out, from
    the best word down: `anchor`, `target`, their variants (each word's of a phrase), and variants
    of words already taken.

    Raises StepFailed when the vocabulary has too few words left.
    """
    excluded = Exclusions((anchor, target))
    found: list[int] = []
    for index in ratings.descending(first=2 * count + 6):
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
