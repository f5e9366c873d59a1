import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart_service.domain.errors import StepFailed
from headstart_service.pipelines.bridging.ratings import Rater, Ratings
from headstart_service.pipelines.bridging.relevance import Game, relevance
from headstart_service.pipelines.bridging.scan import VocabularyScan

_RANDOM = np.random.Generator(np.random.PCG64(1))
Vectors = NDArray[np.float32]


def unit_rows(count: int) -> Vectors:
    rows = _RANDOM.standard_normal((count, 16)).astype(np.float32)
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


MATRIX = unit_rows(500)
RATER = Rater(MATRIX)
GAMES: list[Game] = [(row[0], row[1]) for row in unit_rows(80).reshape(40, 2, 16)]


class Gate:
    """A rater that counts games per product and waits at a gate."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.entered = threading.Event()
        self.open = threading.Event()
        self.failures: list[Exception] = []

    def rate(self, games: Sequence[Game]) -> list[Ratings]:
        self.batches.append(len(games))
        self.entered.set()
        assert self.open.wait(10)
        if self.failures:
            raise self.failures.pop()
        return RATER.rate(games)


@pytest.fixture
def gate() -> Gate:
    return Gate()


def gated(gate: Gate, max_recent: int = 64) -> VocabularyScan:
    return VocabularyScan(MATRIX, max_recent=max_recent, rater=gate)  # type: ignore[arg-type]


def every(ratings: Ratings) -> Any:
    """The relevance of each word."""
    return ratings.of(np.arange(len(ratings)))


def start(scan: VocabularyScan, game: Game) -> asyncio.Task[Any]:
    return asyncio.create_task(scan.rate(*game))


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.wait, 10)


def test_relevance_is_the_cosine_to_the_farther_end() -> None:
    anchor, target = GAMES[0]
    expected = [min(float(w @ anchor), float(w @ target)) for w in MATRIX]
    assert np.allclose(relevance(MATRIX, anchor, target), expected, atol=1e-6)


def test_games_in_one_product_get_what_each_gets_alone() -> None:
    for game, ratings in zip(GAMES, RATER.rate(GAMES), strict=True):
        assert np.allclose(every(ratings), relevance(MATRIX, *game), atol=1e-6)
        [alone] = RATER.rate([game])
        assert every(ratings).tolist() == every(alone).tolist()
        assert list(ratings.descending(5)) == list(alone.descending(5))


async def test_the_steps_of_a_run_share_one_scan(gate: Gate) -> None:
    async with gated(gate) as scan:
        both = [start(scan, GAMES[0]), start(scan, GAMES[0])]
        await entered(gate)
        gate.open.set()
        first, second = await asyncio.gather(*both)
        third = await scan.rate(*GAMES[0])
    assert gate.batches == [1]
    assert first is second is third


async def test_games_that_wait_share_one_product_while_the_loop_runs_on(gate: Gate) -> None:
    async with gated(gate) as scan:
        first = start(scan, GAMES[0])
        await entered(gate)  # the loop runs although the product is being computed
        others = [start(scan, game) for game in GAMES[1:]]
        await asyncio.sleep(0)
        gate.open.set()
        results = await asyncio.gather(first, *others)
    assert gate.batches == [1, 32, 7]
    for game, scores in zip(GAMES, results, strict=True):
        assert np.allclose(every(scores), relevance(MATRIX, *game), atol=1e-6)


async def test_a_cancelled_step_does_not_take_the_scan_from_the_other(gate: Gate) -> None:
    async with gated(gate) as scan:
        first, second = start(scan, GAMES[0]), start(scan, GAMES[0])
        await entered(gate)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.open.set()
        assert np.allclose(every(await second), relevance(MATRIX, *GAMES[0]), atol=1e-6)
    assert gate.batches == [1]


async def test_a_failed_scan_is_tried_again(gate: Gate) -> None:
    gate.open.set()
    gate.failures.append(StepFailed("no memory"))
    async with gated(gate) as scan:
        with pytest.raises(StepFailed, match="no memory"):
            await scan.rate(*GAMES[0])
        await scan.rate(*GAMES[0])
    assert gate.batches == [1, 1]


async def test_only_recent_scans_are_kept(gate: Gate) -> None:
    gate.open.set()
    async with gated(gate, max_recent=2) as scan:
        for game in (GAMES[0], GAMES[1], GAMES[0], GAMES[2], GAMES[0], GAMES[1]):
            await scan.rate(*game)
    assert len(gate.batches) == 4, "the second game was dropped for the third"


async def test_leaving_cancels_who_still_waits(gate: Gate) -> None:
    async with gated(gate) as scan:
        waiting = start(scan, GAMES[0])
        await entered(gate)
        gate.open.set()
        waiting_too = start(scan, GAMES[1])
        await asyncio.sleep(0)
    done = await asyncio.gather(waiting, waiting_too, return_exceptions=True)
    assert all(isinstance(d, (Ratings, asyncio.CancelledError)) for d in done)


async def test_a_game_of_another_shape_fails_alone(gate: Gate) -> None:
    async with gated(gate) as scan:
        first = start(scan, GAMES[0])
        await entered(gate)
        wrong = start(scan, (GAMES[1][0][:7], GAMES[1][1]))
        beside = start(scan, GAMES[2])
        await asyncio.sleep(0)
        gate.open.set()
        answers = await asyncio.gather(first, wrong, beside, return_exceptions=True)
    assert isinstance(answers[1], StepFailed)
    assert "anchor of shape (7,)" in str(answers[1])
    assert isinstance(answers[2], Ratings)
    assert np.allclose(every(answers[2]), relevance(MATRIX, *GAMES[2]), atol=1e-6)
