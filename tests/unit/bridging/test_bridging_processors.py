"""A game's words and samples are the same on every processor, and beside any other games.

OpenBLAS and numpy choose their kernels by the processor; both can be made to take another's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart_service.pipelines.bridging.neighbours import neighbours
from headstart_service.pipelines.bridging.null import draw_distinct, null_samples
from headstart_service.pipelines.bridging.ratings import Rater, Ratings
from headstart_service.pipelines.bridging.relevance import Game, exact_relevance

CORES = {"Haswell": "avx2", "Zen": "avx2", "SkylakeX": "avx512f"}
"""Kernels of OpenBLAS, and the processor's flag that each needs."""
_GAMES, _CLUES, _SAMPLES = 24, 5, 50
_BATCHES = (1, 8, _GAMES)


def _flags() -> set[str]:
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()


def played(matrix: NDArray[np.float32], batch: int) -> dict[str, Any]:
    """What games between neighbouring rows give when so many of them share a product."""
    letters = np.random.Generator(np.random.PCG64(2)).integers(97, 123, (len(matrix), 8))
    words = ["".join(map(chr, row)) for row in letters]
    games: list[Game] = [(matrix[2 * at], matrix[2 * at + 1]) for at in range(_GAMES)]
    rater = Rater(matrix)
    found: dict[str, Any] = {"words": [], "exact": [], "samples": [], "draws": []}
    for first in range(0, _GAMES, batch):
        some = games[first : first + batch]
        for at, (game, ratings) in enumerate(zip(some, rater.rate(some), strict=True)):
            ends = words[2 * (first + at)], words[2 * (first + at) + 1]
            best = neighbours(ratings, words, *ends, _CLUES)
            found["words"].append([words[place] for place in best])
            found["exact"].append(exact_relevance(matrix[best], game).tobytes().hex())
            samples = null_samples(ratings, [0, 1], _CLUES, _SAMPLES, seed=first + at)
            found["samples"].append(samples.tolist())
            random = np.random.Generator(np.random.PCG64(first + at))
            draws = draw_distinct(random, len(matrix) - 2, _CLUES, _SAMPLES)
            found["draws"].append(draws.tolist())
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unit rows, each with a twin whose scores are so near that float32 sums confuse them."""
    random = np.random.Generator(np.random.PCG64(3))
    rows = random.standard_normal((1500, 384))
    unit = (rows / np.sqrt((rows * rows).sum(axis=1, keepdims=True))).astype(np.float32)
    twins = (unit + random.normal(0, 2e-8, unit.shape)).astype(np.float32)
    path = tmp_path_factory.mktemp("matrix") / "matrix.npy"
    np.save(path, np.concatenate([unit, twins]))
    return path


@pytest.mark.parametrize("core", CORES)
def test_a_game_of_equal_vectors_is_the_same_on_each_processor(core: str, file: Path) -> None:
    if CORES[core] not in _flags():
        pytest.skip(f"this processor has no {CORES[core]}")
    ours = played(np.load(file), batch=1)
    environment = os.environ | {"OPENBLAS_CORETYPE": core}
    if CORES[core] == "avx2":  # then numpy's own loops, too
        environment["NPY_DISABLE_CPU_FEATURES"] = "X86_V4 AVX512_ICL AVX512_SPR"
    done = subprocess.run(
        [sys.executable, __file__, str(file)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    for batch, theirs in zip(_BATCHES, json.loads(done.stdout), strict=True):
        for same in ("words", "exact", "draws"):
            assert theirs[same] == ours[same], (same, batch)
        np.testing.assert_allclose(theirs["samples"], ours["samples"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_no_error_of_the_shortlist_within_the_bound_changes_a_word(seed: int) -> None:
    random = np.random.Generator(np.random.PCG64(seed))
    # Many equal and nearly equal words, of one dimension.
    exact = (np.float32(0.25) + random.integers(0, 60, 3000) * 2.0**-25).astype(np.float32)
    matrix, one = exact[:, None], np.ones(1, np.float32)
    error = random.uniform(0, 1e-6, 3000).astype(np.float32)
    rough = exact + (error * random.uniform(-0.9, 0.9, 3000)).astype(np.float32)
    bound = error + np.float32(1e-7)
    ratings = Ratings(matrix, (one, one), rough, exact, lambda: bound)
    words = _distinct(random, 3000)
    # The first ones are variants of the anchor, so that the first shortlist, of 46, ends amid
    # the words that are found.
    order = np.argsort(-exact, kind="stable").tolist()
    for place in order[:40]:
        words[place] = f"ocean-{place}"
    expected = [place for place in order if not words[place].startswith("ocean")][:20]
    assert neighbours(ratings, words, "ocean", "forest", 20) == expected


def _distinct(random: np.random.Generator, count: int) -> list[str]:
    places = random.permutation(count)
    return [
        f"{chr(97 + at // 676 % 26)}q{chr(97 + at // 26 % 26)}x{chr(97 + at % 26)}z"
        for at in places
    ]


def test_the_bits_of_exact_relevance_do_not_depend_on_the_other_rows() -> None:
    rows = np.random.Generator(np.random.PCG64(4)).standard_normal((2100, 48)).astype(np.float32)
    game = (rows[0], rows[1])
    whole = exact_relevance(rows, game)
    alone = [exact_relevance(rows[at : at + 1], game)[0] for at in range(len(rows))]
    assert whole.tolist() == alone
    products = rows.astype(np.float64) @ np.array(game, dtype=np.float64).T
    np.testing.assert_allclose(whole, products.min(axis=1), rtol=0, atol=1e-12)


if __name__ == "__main__":
    print(json.dumps([played(np.load(sys.argv[1]), batch) for batch in _BATCHES]))
