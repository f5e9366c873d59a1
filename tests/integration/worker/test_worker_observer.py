"""What watches a worker hears of its runs and steps."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager

from headstart_service.domain import RunKey, Status
from headstart_service.domain.errors import ExecutorUnavailable
from headstart_service.worker.executors.executors import Executors
from headstart_service.worker.worker_observer import WorkObservers
from tests.integration.worker.conftest import Games
from tests.support.waiting import wait_until


class Diary:
    """An observer that writes down when contexts open, and how they end."""

    def __init__(self, name: str = "", diary: list[str] | None = None) -> None:
        self.name = name
        self.diary = [] if diary is None else diary
        self.tasks = []

    @contextmanager
    def run(self, claim, outcome):
        self.diary.append(f"{self.name}run")
        try:
            yield
        finally:
            self.diary.append(f"{self.name}run {outcome.state} {outcome.error}".strip())

    @contextmanager
    def step(self, claim, name, outcome):
        self.tasks.append(asyncio.current_task())
        self.diary.append(f"{self.name}{name}")
        try:
            yield
        finally:
            assert self.tasks.pop() is asyncio.current_task()
            self.diary.append(f"{self.name}{name} {outcome.state} {outcome.attempts}")


async def test_a_run_and_its_steps_are_watched_from_beginning_to_end(games: Games) -> None:
    diary = Diary()
    games.control.gates["g"].set()
    await games.start("g")
    async with games.working(observer=diary):
        await games.until("g", Status.COMPLETED)
        await wait_until(lambda: "run completed" in diary.diary)
    steps = ["first", "first completed 1", "second", "second completed 1"]
    assert diary.diary == ["run", *steps, "run completed"]


async def test_a_run_that_is_cancelled_or_handed_on_is_reported_as_such(games: Games) -> None:
    diary = Diary()
    await games.start("g")
    async with games.working(observer=diary, drain=0.0):
        await wait_until(lambda: games.control.running == 1)
        await games.until_heard()
        await games.store.cancel(RunKey("default", "g"))
        await wait_until(lambda: "run stopped it was cancelled or replaced" in diary.diary)
        await games.start("h")
        await wait_until(lambda: games.control.running == 1)
    assert diary.diary[-1] == "run handed_on"


async def test_a_run_whose_place_is_away_is_reported_as_handed_on(games: Games) -> None:
    diary = Diary()

    class Away(Executors):
        away = True

        async def ready(self, each) -> None:
            if each.name == "second" and self.away:
                self.away = False
                raise ExecutorUnavailable("Ray is away")

    games.control.gates["g"].set()
    await games.start("g")
    async with Away() as executors, games.working(observer=diary, executors=executors):
        await wait_until(lambda: "run completed" in diary.diary)
    assert [line for line in diary.diary if line.startswith("run ")] == [
        "run handed_on Ray is away",
        "run completed",
    ]


async def test_several_observers_nest(games: Games) -> None:
    diary: list[str] = []
    outer, inner = (Diary(name, diary) for name in "ab")
    games.control.gates["g"].set()
    await games.start("g")
    async with games.working(observer=WorkObservers([outer, inner])):
        await wait_until(lambda: "arun completed" in diary)
    assert diary[:4] == ["arun", "brun", "afirst", "bfirst"]
    assert diary[-2:] == ["brun completed", "arun completed"]
