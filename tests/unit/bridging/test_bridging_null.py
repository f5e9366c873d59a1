import random
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart_service.domain.errors import StepFailed
from headstart_service.pipelines.bridging.null import draw_distinct, null_samples
from headstart_service.pipelines.bridging.ratings import Rater, Ratings
from tests.support.processes import ROOT

SCORES = np.random.Generator(np.random.PCG64(7)).normal(0.2, 0.1, 3000).astype(np.float32)


def rated(scores: Any) -> Ratings:
    """Words with these relevances, by vectors of one number."""
    one = np.ones(1, dtype=np.float32)
    [ratings] = Rater(np.asarray(scores, dtype=np.float32)[:, None]).rate([(one, one)])
    return ratings


RATED = rated(SCORES)


def test_samples_are_ascending_and_as_many_as_asked_for() -> None:
    samples = null_samples(RATED, [3, 9], 5, 100, seed=1)
    assert samples.dtype == np.float64
    assert samples.shape == (100,)
    assert (np.diff(samples) >= 0).all()


def test_another_process_draws_the_same_bits() -> None:
    code = (
        "from headstart_service.pipelines.bridging.null import null_samples;"
        "from tests.unit.bridging.test_bridging_null import RATED;"
        f"print(null_samples(RATED, [9, 3], 5, 100, seed={2**127 + 1}).tobytes().hex())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    mine = null_samples(RATED, [3, 9], 5, 100, seed=2**127 + 1)
    assert other.stdout.strip() == mine.tobytes().hex()


def test_another_seed_draws_other_samples() -> None:
    first = null_samples(RATED, [], 5, 100, seed=1)
    assert not np.array_equal(first, null_samples(RATED, [], 5, 100, seed=2))


@pytest.mark.parametrize("clue_count", [1, 5, 50])
def test_the_distribution_is_that_of_an_independent_sampler(clue_count: int) -> None:
    from scipy.stats import ks_2samp

    excluded = {0, 17, 2999}
    ours = null_samples(RATED, excluded, clue_count, 10_000, seed=5)
    left = [float(s) for place, s in enumerate(SCORES) if place not in excluded]
    dice = random.Random(11)
    theirs = [sum(dice.sample(left, clue_count)) / clue_count for _ in range(10_000)]
    assert ks_2samp(ours, theirs).pvalue > 0.01


def test_every_set_is_equally_likely() -> None:
    from scipy.stats import chisquare

    rows = draw_distinct(np.random.Generator(np.random.PCG64(3)), size=6, width=3, rows=20_000)
    counts = Counter(tuple(sorted(row)) for row in rows.tolist())
    assert len(counts) == 20, "all 3-sets of 6"
    assert chisquare(list(counts.values())).pvalue > 0.01


@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 2**128 - 1))
def test_words_are_distinct_and_excluded_ones_never_drawn(width: int, more: int, seed: int) -> None:
    size = width + more + 2
    excluded = {seed % size, (seed >> 64) % size}
    # Only excluded words have a relevance: one of them drawn would show in a mean.
    scores = np.zeros(size, dtype=np.float32)
    scores[list(excluded)] = 1.0
    assert (null_samples(rated(scores), excluded, width, 20, seed) == 0).all()
    rows = draw_distinct(np.random.Generator(np.random.PCG64(seed)), size, width, 20)
    assert all(len(set(row)) == width for row in rows.tolist())
    assert ((rows >= 0) & (rows < size)).all()


def test_a_vocabulary_with_just_enough_words_gives_their_mean() -> None:
    scores = np.array([9, 1, 2, 3, 9], dtype=np.float32)
    assert null_samples(rated(scores), [0, 4], 3, 7, seed=1).tolist() == [2.0] * 7


def test_too_few_words_fail_with_the_reason() -> None:
    with pytest.raises(StepFailed, match="has 2 words besides anchor and target") as caught:
        null_samples(rated(np.zeros(4)), [0, 3], 3, 1, seed=1)
    assert not caught.value.retry
