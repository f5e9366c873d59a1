"""Rough ratings are within their bounds, and what is decided by them is what exact numbers decide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headstart_service.pipelines.bridging.integer_products import (
    LEVELS,
    MATRIX_LEVELS,
    IntegerProducts,
)
from headstart_service.pipelines.bridging.ratings import Rater
from headstart_service.pipelines.bridging.relevance import exact_relevance

SHAPES = st.tuples(st.integers(1, 400), st.integers(1, 70), st.integers(0, 2**32))


def test_no_processor_saturates() -> None:
    assert 2 * (LEVELS + 64) * MATRIX_LEVELS < 2**15


@pytest.mark.parametrize("fill", ["random", "most", "least", "opposite"])
def test_products_are_those_of_whole_numbers(fill: str) -> None:
    random = np.random.default_rng(1)
    matrix = random.integers(-MATRIX_LEVELS, MATRIX_LEVELS, (301, 384), np.int8, endpoint=True)
    rows = random.integers(-LEVELS, LEVELS, (5, 384), np.int8, endpoint=True)
    if fill != "random":
        matrix[:] = -MATRIX_LEVELS if fill == "least" else MATRIX_LEVELS
        rows[:] = LEVELS if fill == "most" else -LEVELS
    expected = rows.astype(np.int32) @ matrix.astype(np.int32).T
    assert (IntegerProducts(matrix).of(rows) == expected).all()


def drawn(count: int, width: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit rows and two ends; some rows are equal, some are zero, some have one large number."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((count + 2, width)) ** random.choice([1, 3, 9])
    rows[random.random(count + 2) < 0.2] = rows[0]
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = (rows / np.where(lengths == 0, 1, lengths)).astype(np.float32)
    unit[2:][random.random(count) < 0.05] = 0
    return unit[2:], unit[:2]


@given(SHAPES, st.integers(1, 300))
def test_the_order_is_that_of_exact_relevances(shape: tuple[int, int, int], first: int) -> None:
    matrix, ends = drawn(*shape)
    game = (ends[0], ends[1])
    [ratings] = Rater(matrix).rate([game])
    exact = exact_relevance(matrix, game)
    order = sorted(range(len(matrix)), key=lambda place: (-exact[place], place))
    assert list(ratings.descending(first)) == order
    places = np.array([order[:1], order[-1:]])
    assert np.allclose(ratings.of(places), exact[places], rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [1, 2, 384])
@pytest.mark.parametrize("ends", [1, 1e-44, 1e-30, 1e-10, 1e10, 1e30])
@pytest.mark.parametrize("words", ["unit", "near", "one large", "equal", "least", "tiny", "large"])
@pytest.mark.filterwarnings("error")
def test_the_order_is_exact_for_vectors_of_any_length(words: str, ends: float, width: int) -> None:
    random = np.random.default_rng(5)
    rows = random.standard_normal((600, width))
    if words == "one large":
        rows[:, 0] = 1e3
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if words in ("near", "large"):  # apart by less than float32's rounding of a product
        rows = rows[:1] + rows * 1e-6
    if words == "equal":
        rows[:] = rows[0]
    anchor, target = (end.astype(np.float32) * np.float32(ends) for end in rows[:2])
    scale = {"least": 1e-44, "tiny": 1e-30, "large": 1e6}.get(words, 1)
    matrix = rows.astype(np.float32) * np.float32(scale)
    for game in ((anchor, target), (anchor, -target), (anchor, anchor * 0)):
        [ratings] = Rater(matrix).rate([game])
        exact = exact_relevance(matrix, game)
        order = sorted(range(len(matrix)), key=lambda place: (-exact[place], place))
        assert list(ratings.descending(5)) == order


def test_few_words_are_computed_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, ends = drawn(5000, 64, seed=3)
    computed: list[int] = []

    def counted(rows: NDArray[np.float32], game: tuple[NDArray[np.float32], ...]) -> object:
        computed.append(len(rows))
        return exact_relevance(rows, game)  # type: ignore[arg-type]

    monkeypatch.setattr("headstart_service.pipelines.bridging.ratings.exact_relevance", counted)
    [ratings] = Rater(matrix).rate([(ends[0], ends[1])])
    descending = ratings.descending(72)
    [next(descending) for _ in range(72)]
    assert computed == [pytest.approx(75, abs=3)]
