"""The client's score is the service's score."""

import math
import random

import numpy as np
import pytest

from headstart import percentile, relevance

EAST, NORTH, NORTH_EAST = (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)


def test_relevance_is_the_similarity_to_the_farther_end() -> None:
    assert relevance(NORTH_EAST, EAST, NORTH) == pytest.approx(math.sqrt(0.5))
    assert relevance((3.0, 1.0), EAST, NORTH) == pytest.approx(1 / math.sqrt(10))
    assert relevance(EAST, EAST, NORTH) == 0.0


def test_relevance_of_a_set_is_the_mean_of_its_words() -> None:
    assert relevance([NORTH_EAST, EAST], EAST, NORTH) == pytest.approx(math.sqrt(0.5) / 2)


def test_relevance_agrees_with_the_vectorised_formula_and_takes_numpy_arrays() -> None:
    random_numbers = np.random.default_rng(7)
    words = random_numbers.normal(size=(5, 384)).astype(np.float32)
    anchor, target = random_numbers.normal(size=(2, 384)).astype(np.float32)

    def unit(array: np.ndarray) -> np.ndarray:
        return array / np.linalg.norm(array, axis=-1, keepdims=True)

    expected = np.minimum(unit(words) @ unit(anchor), unit(words) @ unit(target)).mean()
    assert relevance(words, anchor, target) == pytest.approx(float(expected), abs=1e-6)
    assert relevance(words.tolist(), anchor, target) == relevance(words, anchor, target)


def test_relevance_never_leaves_minus_one_to_one() -> None:
    for seed in range(200):
        vector = [random.Random(seed).uniform(-1, 1) for _ in range(7)]
        assert -1.0 <= relevance(vector, vector, vector) <= 1.0


@pytest.mark.parametrize(
    ("words", "anchor", "target", "complaint"),
    [
        ([], EAST, NORTH, "no words"),
        ([[]], EAST, NORTH, "word 0 has no direction"),
        ([EAST, (0.0, 0.0)], EAST, NORTH, "word 1 has no direction"),
        (EAST, (0.0, 0.0), NORTH, "anchor has no direction"),
        (EAST, EAST, (), "target has no direction"),
        ((math.nan, 1.0), EAST, NORTH, "word 0 has a number that is not finite"),
        (EAST, (math.inf, 1.0), NORTH, "anchor has a number that is not finite"),
        ((1.0, 0.0, 0.0), EAST, NORTH, "word 0 has 3 dimensions, anchor 2"),
        (EAST, EAST, (1.0, 0.0, 0.0), "anchor has 2 dimensions, target 3"),
    ],
)
def test_relevance_reports_what_is_wrong(
    words: list[float], anchor: list[float], target: list[float], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        relevance(words, anchor, target)


def test_percentile_is_scipys() -> None:
    from scipy.stats import percentileofscore

    numbers = random.Random(7)
    for _ in range(100):
        # Few distinct values, so that ties occur.
        samples = [numbers.randrange(10) / 10 for _ in range(numbers.randrange(1, 30))]
        score = numbers.randrange(-1, 12) / 10
        expected = percentileofscore(samples, score, kind="mean")
        assert percentile(score, samples) == pytest.approx(expected)


def test_percentile_counts_half_of_what_is_equal() -> None:
    assert percentile(0.5, (0.1, 0.5, 0.5, 0.9)) == 50.0
    assert percentile(1.0, [0.1, 0.2]) == 100.0
    assert percentile(0.0, [0.1, 0.2]) == 0.0


@pytest.mark.parametrize(
    ("score", "samples", "complaint"),
    [(0.5, [], "no samples"), (math.nan, [0.1], "NaN"), (0.5, [0.1, math.nan], "NaN")],
)
def test_percentile_reports_what_is_wrong(
    score: float, samples: list[float], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        percentile(score, samples)
