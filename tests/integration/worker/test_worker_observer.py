"""What watches a worker hears of its runs and steps."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager

from headstart_service.domain import RunKey, Status
from headstart_service.domain.errors import PlaceUnavailable
from headstart_service.worker.executors.executors import Places
from headstart_service.worker.worker_observer import WorkObservers
from tests.integration.worker.conftest import Backend
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


async def test_a_run_and_its_steps_are_watched_from_beginning_to_end(backend: Backend) -> None:
    diary = Diary()
    backend.control.gates["g"].set()
    await backend.start("g")
    async with backend.working(observer=diary):
        await backend.until("g", Status.COMPLETED)
        await wait_until(lambda: "run completed" in diary.diary)
    steps = ["first", "first completed 1", "second", "second completed 1"]
    assert diary.diary == ["run", *steps, "run completed"]


async def test_a_run_that_is_cancelled_or_handed_on_says_so(backend: Backend) -> None:
    diary = Diary()
    await backend.start("g")
    async with backend.working(observer=diary, drain=0.0):
        await wait_until(lambda: backend.control.running == 1)
        await backend.until_heard()
        await backend.store.cancel(RunKey("default", "g"))
        await wait_until(lambda: "run stopped it was cancelled or replaced" in diary.diary)
        await backend.start("h")
        await wait_until(lambda: backend.control.running == 1)
    assert diary.diary[-1] == "run handed_on"


async def test_a_run_whose_place_is_away_is_reported_as_handed_on(backend: Backend) -> None:
    diary = Diary()

    class Away(Places):
        away = True

        async def ready(self, each) -> None:
            if each.name == "second" and self.away:
                self.away = False
                raise PlaceUnavailable("Ray is away")

    backend.control.gates["g"].set()
    await backend.start("g")
    async with Away() as places, backend.working(observer=diary, places=places):
        await wait_until(lambda: "run completed" in diary.diary)
    assert [line for line in diary.diary if line.startswith("run ")] == [
        "run handed_on Ray is away",
        "run completed",
    ]


async def test_several_observers_nest(backend: Backend) -> None:
    diary: list[str] = []
    outer, inner = (Diary(name, diary) for name in "ab")
    backend.control.gates["g"].set()
    await backend.start("g")
    async with backend.working(observer=WorkObservers([outer, inner])):
        await wait_until(lambda: "arun completed" in diary)
    assert diary[:4] == ["arun", "brun", "afirst", "bfirst"]
    assert diary[-2:] == ["brun completed", "arun completed"]
