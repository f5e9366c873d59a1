import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart_service.domain.errors import StepFailed
from headstart_service.pipelines.bridging import scan as scan_module
from headstart_service.pipelines.bridging.relevance import Game, relevance, relevances
from headstart_service.pipelines.bridging.scan import VocabularyScan

_RANDOM = np.random.Generator(np.random.PCG64(1))
Vectors = NDArray[np.float32]


def unit_rows(count: int) -> Vectors:
    rows = _RANDOM.standard_normal((count, 16)).astype(np.float32)
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


MATRIX = unit_rows(500)
GAMES: list[Game] = [(row[0], row[1]) for row in unit_rows(80).reshape(40, 2, 16)]


class Gate:
    """`relevances`, which counts games per product and waits at a gate."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.entered = threading.Event()
        self.open = threading.Event()
        self.failures: list[Exception] = []

    def __call__(self, matrix: Vectors, games: Sequence[Game]) -> list[Vectors]:
        self.batches.append(len(games))
        self.entered.set()
        assert self.open.wait(10)
        if self.failures:
            raise self.failures.pop()
        return relevances(matrix, games)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    monkeypatch.setattr(scan_module, "relevances", gate)
    return gate


def start(scan: VocabularyScan, game: Game) -> asyncio.Task[Any]:
    return asyncio.create_task(scan.relevance(*game))


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.wait, 10)


def test_relevance_is_the_cosine_to_the_farther_end() -> None:
    anchor, target = GAMES[0]
    expected = [min(float(w @ anchor), float(w @ target)) for w in MATRIX]
    assert np.allclose(relevance(MATRIX, anchor, target), expected, atol=1e-6)


def test_games_in_one_product_get_what_each_gets_alone() -> None:
    for game, scores in zip(GAMES, relevances(MATRIX, GAMES), strict=True):
        assert np.allclose(scores, relevance(MATRIX, *game), atol=1e-6)
        assert scores.flags.c_contiguous
        assert scores.base is None, "a kept row must not keep the batch"


async def test_the_steps_of_a_run_share_one_scan(gate: Gate) -> None:
    async with VocabularyScan(MATRIX) as scan:
        both = [start(scan, GAMES[0]), start(scan, GAMES[0])]
        await entered(gate)
        gate.open.set()
        first, second = await asyncio.gather(*both)
        third = await scan.relevance(*GAMES[0])
    assert gate.batches == [1]
    assert first is second is third
    assert not first.flags.writeable


async def test_games_that_wait_share_one_product_while_the_loop_runs_on(gate: Gate) -> None:
    async with VocabularyScan(MATRIX) as scan:
        first = start(scan, GAMES[0])
        await entered(gate)  # the loop runs although the product is being computed
        others = [start(scan, game) for game in GAMES[1:]]
        await asyncio.sleep(0)
        gate.open.set()
        results = await asyncio.gather(first, *others)
    assert gate.batches == [1, 32, 7]
    for game, scores in zip(GAMES, results, strict=True):
        assert np.allclose(scores, relevance(MATRIX, *game), atol=1e-6)


async def test_a_cancelled_step_does_not_take_the_scan_from_the_other(gate: Gate) -> None:
    async with VocabularyScan(MATRIX) as scan:
        first, second = start(scan, GAMES[0]), start(scan, GAMES[0])
        await entered(gate)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.open.set()
        assert np.allclose(await second, relevance(MATRIX, *GAMES[0]), atol=1e-6)
    assert gate.batches == [1]


async def test_a_failed_scan_is_tried_again(gate: Gate) -> None:
    gate.open.set()
    gate.failures.append(StepFailed("no memory"))
    async with VocabularyScan(MATRIX) as scan:
        with pytest.raises(StepFailed, match="no memory"):
            await scan.relevance(*GAMES[0])
        await scan.relevance(*GAMES[0])
    assert gate.batches == [1, 1]


async def test_only_recent_scans_are_kept(gate: Gate) -> None:
    gate.open.set()
    async with VocabularyScan(MATRIX, max_recent=2) as scan:
        for game in (GAMES[0], GAMES[1], GAMES[0], GAMES[2], GAMES[0], GAMES[1]):
            await scan.relevance(*game)
    assert len(gate.batches) == 4, "the second game was dropped for the third"


async def test_leaving_cancels_who_still_waits(gate: Gate) -> None:
    async with VocabularyScan(MATRIX) as scan:
        waiting = start(scan, GAMES[0])
        await entered(gate)
        gate.open.set()
        waiting_too = start(scan, GAMES[1])
        await asyncio.sleep(0)
    done = await asyncio.gather(waiting, waiting_too, return_exceptions=True)
    assert all(isinstance(d, (np.ndarray, asyncio.CancelledError)) for d in done)


async def test_a_game_of_another_shape_fails_alone(gate: Gate) -> None:
    async with VocabularyScan(MATRIX) as scan:
        first = start(scan, GAMES[0])
        await entered(gate)
        wrong = start(scan, (GAMES[1][0][:7], GAMES[1][1]))
        beside = start(scan, GAMES[2])
        await asyncio.sleep(0)
        gate.open.set()
        answers = await asyncio.gather(first, wrong, beside, return_exceptions=True)
    assert isinstance(answers[1], StepFailed)
    assert "anchor of shape (7,)" in str(answers[1])
    assert np.array_equal(answers[2], relevance(MATRIX, *GAMES[2]))  # type: ignore[arg-type]
