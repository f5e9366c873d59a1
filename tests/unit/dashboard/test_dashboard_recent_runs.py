"""What the live page remembers of runs: never older than what was announced, whatever fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.dashboard.recent_runs import RecentRuns
from headstart_service.domain import (
    Announcement,
    EventKind,
    Lack,
    RunKey,
    RunSummary,
    Status,
    StepState,
    UnservedStep,
)
from headstart_service.domain.errors import RecordDamaged, StoreUnavailable
from headstart_service.pipeline.registry import Registry
from tests.support.run_store import FakeRunStore

KEY, OTHER = RunKey("shop", "one"), RunKey("shop", "two")
LIVE, DONE = Status.IN_PROGRESS, Status.COMPLETED


def run(key: RunKey, status: Status = LIVE) -> RunSummary:
    return RunSummary(key, "noop", 1, status, 1, 2, 9 if status.ended else 0, 99, "")


@pytest.fixture
def runs() -> Iterator[FakeRunStore]:
    made = FakeRunStore(run(KEY), run(OTHER))
    for key in (KEY, OTHER):
        made.reports[key] = {"a": pb.StepReport(started_us=2)}
        made.states[key] = {"a": StepState.COMPLETED}
    yield made
    assert all(0 < largest <= 2**16 for _, largest in made.asked("inspect"))


@pytest.fixture
def book(runs: FakeRunStore) -> RecentRuns:
    return RecentRuns(runs, Registry([]))  # type: ignore[arg-type]


def said(kind: str, key: RunKey = KEY) -> Announcement:
    return Announcement(EventKind(kind), key, "run-1")


def status_of(book: RecentRuns, key: RunKey = KEY) -> Status | None:
    seen = book.seen(key)
    return seen.status if seen else None


async def test_a_run_with_a_step_without_workers_is_read_again_until_it_has_some(
    book: RecentRuns, runs: FakeRunStore
) -> None:
    unserved = (UnservedStep("a", "gpu", Lack.POOL),)
    runs.runs[KEY] = replace(run(KEY), unserved_steps=unserved)
    await book.look([KEY])
    runs.runs[KEY] = run(KEY)  # a worker of the pool came: nothing announces that
    for _ in range(3):
        await book.look([KEY])
    assert len(runs.asked("inspect")) == 2


async def test_a_run_that_cannot_be_decoded_hides_itself_alone(
    book: RecentRuns, runs: FakeRunStore
) -> None:
    runs.bodies[KEY] = b"\xff\xff\xff"
    await book.look([KEY, OTHER])
    assert (status_of(book), status_of(book, OTHER)) == (None, LIVE)


@pytest.mark.parametrize("damage", ["body", "record"])
async def test_an_unreadable_run_is_read_again_when_something_is_announced_of_it(
    book: RecentRuns, runs: FakeRunStore, damage: str
) -> None:
    if damage == "body":
        runs.bodies[KEY] = b"\xff\xff\xff"
    else:
        runs.fails[KEY] = RecordDamaged(str(KEY))
    for _ in range(3):
        await book.look([KEY])
    assert runs.inspected == [KEY], "others would have to wait behind it, each second"
    runs.bodies.clear()
    runs.fails.clear()
    book.receive(said("started"))
    await book.look([KEY])
    assert status_of(book) is LIVE


async def test_a_read_that_fails_is_made_up_for(book: RecentRuns, runs: FakeRunStore) -> None:
    await book.look([KEY, OTHER])
    runs.runs |= {KEY: run(KEY, DONE), OTHER: run(OTHER, DONE)}
    book.receive(said("step"))
    book.receive(said("step", OTHER))
    runs.fails[OTHER] = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable):
        await book.look([KEY, OTHER])
    assert status_of(book) is DONE, "what was read is not lost"
    runs.fails.clear()
    await book.look([KEY, OTHER])
    assert status_of(book, OTHER) is DONE


async def test_an_end_during_the_first_read_is_seen_by_the_next(
    book: RecentRuns, runs: FakeRunStore
) -> None:
    runs.meanwhile = lambda: book.receive(said("step"))
    await book.look([KEY])
    runs.meanwhile = lambda: None
    runs.runs[KEY] = run(KEY, DONE)
    await book.look([KEY])
    assert status_of(book) is DONE


async def test_what_has_ended_is_looked_at_until_it_is_seen_ended(
    book: RecentRuns, runs: FakeRunStore
) -> None:
    book.remember([run(KEY, DONE)])
    await book.look([KEY])
    runs.runs[KEY] = run(KEY, DONE)
    await book.look([KEY])
    assert status_of(book) is DONE
    before = len(runs.inspected)
    await book.look([KEY])
    assert len(runs.inspected) == before, "nothing is new"


async def test_what_is_gone_is_not_shown_as_running_for_ever(
    book: RecentRuns, runs: FakeRunStore
) -> None:
    await book.look([KEY])
    book.receive(said("ended"))
    del runs.runs[KEY]
    await book.look([KEY])
    assert status_of(book) is None
    assert book.latest(None, 10) == []


async def test_what_was_seen_ended_stays_shown_when_it_is_gone(
    book: RecentRuns, runs: FakeRunStore
) -> None:
    runs.runs[KEY] = run(KEY, DONE)
    book.receive(said("ended"))
    await book.look([KEY])
    del runs.runs[KEY]
    book.receive(said("ended"))
    await book.look([KEY])
    assert status_of(book) is DONE


async def test_a_step_whose_report_was_too_large_to_read_has_no_times(
    book: RecentRuns, runs: FakeRunStore
) -> None:
    runs.runs[KEY] = run(KEY, DONE)
    runs.bodies[KEY] = b""
    await book.look([KEY])
    seen = book.seen(KEY)
    assert seen is not None
    [step] = seen.steps
    assert (step["state"], step["started_us"], step["elapsed"]) == ("completed", 0, None)
    assert book.steps(None) == [], "no duration is made up"


@pytest.mark.parametrize(
    ("origin", "seconds"), [(pb.STEP_ORIGIN_UNSPECIFIED, [1.0]), (pb.STEP_ORIGIN_MEMOISED, [])]
)
async def test_a_memoised_step_is_marked_and_its_time_is_nobodys_duration(
    book: RecentRuns, runs: FakeRunStore, origin: pb.StepOrigin.ValueType, seconds: list[float]
) -> None:
    runs.runs[KEY] = run(KEY, DONE)
    report = pb.StepReport(started_us=2, origin=origin)
    report.elapsed.FromSeconds(1)
    runs.bodies[KEY] = pb.GetResultsResponse(steps={"a": report}).SerializeToString()
    await book.look([KEY])
    seen = book.seen(KEY)
    assert seen is not None
    assert seen.steps[0]["memoised"] is (not seconds)
    assert [row["count"] for row in book.steps(None)] == [1] * len(seconds)


async def test_what_was_seen_is_looked_at_again_after_announcements_were_lost(
    book: RecentRuns, runs: FakeRunStore
) -> None:
    await book.look([KEY])
    runs.runs[KEY] = run(KEY, DONE)
    await book.look([KEY])
    assert status_of(book) is LIVE, "nothing was heard of it"
    book.regained()
    await book.look([KEY])
    assert status_of(book) is DONE
