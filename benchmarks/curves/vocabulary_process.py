"""Scans a vocabulary of any size in a process of its own, as a worker does, and says what it took.

That is processor time, which on a busy machine is what one can compare; with one thread it is the
time that a worker of its own core would take.

Its words are made of random letters and its vectors are random and of unit length: what a scan
costs depends on their number and shape alone. What it does not show is how often a real bridge is
passed over because it is a variant of another.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from ..processes import resident_mb

_DIMENSION, _BATCH, _CLUES, _SAMPLES, _KEPT = 384, 32, 5, 100, 64
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("repeats", type=int)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    # As `headstart worker` does, before numpy is loaded.
    for pool in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[pool] = "1"
    print(json.dumps(_measure(arguments.count, arguments.repeats, arguments.work)))


def _measure(count: int, repeats: int, work: Path) -> dict[str, list[float]]:
    import numpy as np

    from headstart_service.pipelines.bridging.neighbours import neighbours
    from headstart_service.pipelines.bridging.null import null_samples
    from headstart_service.pipelines.bridging.ratings import Rater

    zeros = np.zeros((_CLUES, 1), np.float32)
    [none] = Rater(zeros).rate([(zeros[0], zeros[0])])
    neighbours(none, list("cdefg"), "a", "b", _CLUES)  # loads the stemmer
    empty = resident_mb(os.getpid())
    chance, file = random.Random(count), work / f"{count}.npy"
    made = np.lib.format.open_memmap(file, "w+", np.float32, (count, _DIMENSION))
    generator = np.random.default_rng(count)
    for first in range(0, count, 10_000):
        rows = generator.standard_normal((min(10_000, count - first), _DIMENSION), np.float32)
        made[first : first + len(rows)] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    made.flush()
    del made
    words = ["".join(chance.choices(_LETTERS, k=chance.randint(4, 10))) for _ in range(count)]
    index = {word: place for place, word in enumerate(words)}
    matrix = np.asarray(np.load(file, mmap_mode="r"))
    games = [(matrix[2 * n].copy(), matrix[2 * n + 1].copy()) for n in range(_BATCH)]
    anchor, target = words[0], words[1]
    ends = [index[anchor], index[target]]
    # What `VocabularyScan` keeps for a run's second step.
    rater = Rater(matrix)
    kept = [ratings for _ in range(_KEPT // _BATCH) for ratings in rater.rate(games)]
    ratings = kept[0]
    took: dict[str, list[float]] = {}

    def timed(name: str, action: Callable[[], object]) -> None:
        action()
        for _ in range(repeats):
            began = time.process_time()
            action()
            took.setdefault(name, []).append((time.process_time() - began) * 1000)

    timed("scan of one game", lambda: rater.rate(games[:1]))
    timed(f"scan of {_BATCH} games at once", lambda: rater.rate(games))
    timed(
        "lexical bridge",
        lambda: neighbours(ratings, words, anchor, target, _CLUES),
    )
    timed(f"{_SAMPLES} null samples", lambda: null_samples(ratings, ends, _CLUES, _SAMPLES, seed=1))
    return took | {"memory": [resident_mb(os.getpid()) - empty]}


if __name__ == "__main__":
    main()
