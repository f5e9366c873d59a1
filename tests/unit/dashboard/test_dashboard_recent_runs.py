"""What the live page remembers of runs: never older than what was announced, whatever fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.dashboard.recent_runs import RecentRuns
from headstart_service.domain import (
    Announcement,
    EventKind,
    Inspection,
    RunKey,
    RunSummary,
    Snapshot,
    Status,
    StepState,
)
from headstart_service.domain.errors import RecordDamaged, RunNotFound, StoreUnavailable
from headstart_service.pipeline.registry import Registry

KEY, OTHER = RunKey("shop", "one"), RunKey("shop", "two")
LIVE, DONE = Status.IN_PROGRESS, Status.COMPLETED


class Runs:
    """Runs whose status a test sets, and what happens while one is looked at."""

    def __init__(self) -> None:
        self.status: dict[RunKey, Status] = {KEY: LIVE, OTHER: LIVE}
        self.fails: dict[RunKey, Exception] = {}
        self.body: dict[RunKey, bytes] = {}
        self.meanwhile: Callable[[], None] = lambda: None
        self.peeked: list[RunKey] = []

    async def inspect(self, key: RunKey, *, largest: int = 0) -> Inspection:
        assert 0 < largest <= 2**16
        self.peeked.append(key)
        if key in self.fails:
            raise self.fails[key]
        if key not in self.status:
            raise RunNotFound(key.namespace, key.key)
        status = self.status[key]
        self.meanwhile()
        ended = 9 if status.ended else 0
        summary = RunSummary(key, "noop", 1, status, 1, 2, ended, 99, "")
        whole = pb.GetResultsResponse(steps={"a": pb.StepReport(started_us=2)})
        body = self.body.get(key, whole.SerializeToString())
        states = {"a": StepState.COMPLETED}
        return Inspection(Snapshot(summary, "run-1", states, body, 60.0), 1, "w1")


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def book(runs: Runs) -> RecentRuns:
    return RecentRuns(runs, Registry([]))  # type: ignore[arg-type]


def said(kind: str, key: RunKey = KEY) -> Announcement:
    return Announcement(EventKind(kind), key, "run-1")


def status_of(book: RecentRuns, key: RunKey = KEY) -> Status | None:
    seen = book.seen(key)
    return seen.status if seen else None


async def test_a_run_that_cannot_be_decoded_hides_itself_alone(
    book: RecentRuns, runs: Runs
) -> None:
    runs.body[KEY] = b"\xff\xff\xff"
    await book.look([KEY, OTHER])
    assert (status_of(book), status_of(book, OTHER)) == (None, LIVE)


@pytest.mark.parametrize("damage", ["body", "record"])
async def test_an_unreadable_run_is_read_again_when_something_is_said_of_it(
    book: RecentRuns, runs: Runs, damage: str
) -> None:
    if damage == "body":
        runs.body[KEY] = b"\xff\xff\xff"
    else:
        runs.fails[KEY] = RecordDamaged(str(KEY))
    for _ in range(3):
        await book.look([KEY])
    assert runs.peeked == [KEY], "others would have to wait behind it, each second"
    runs.body.clear()
    runs.fails.clear()
    book.receive(said("started"))
    await book.look([KEY])
    assert status_of(book) is LIVE


async def test_a_look_that_fails_is_made_up_for(book: RecentRuns, runs: Runs) -> None:
    await book.look([KEY, OTHER])
    runs.status |= {KEY: DONE, OTHER: DONE}
    book.receive(said("step"))
    book.receive(said("step", OTHER))
    runs.fails[OTHER] = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable):
        await book.look([KEY, OTHER])
    assert status_of(book) is DONE, "what was read is not lost"
    runs.fails.clear()
    await book.look([KEY, OTHER])
    assert status_of(book, OTHER) is DONE


async def test_an_end_during_the_first_look_is_seen_by_the_next(
    book: RecentRuns, runs: Runs
) -> None:
    runs.meanwhile = lambda: book.receive(said("step"))
    await book.look([KEY])
    runs.meanwhile = lambda: None
    runs.status[KEY] = DONE
    await book.look([KEY])
    assert status_of(book) is DONE


async def test_what_has_ended_is_looked_at_until_it_is_seen_ended(
    book: RecentRuns, runs: Runs
) -> None:
    book.remember([RunSummary(KEY, "noop", 1, DONE, 1, 2, 9, 99, "")])
    await book.look([KEY])
    runs.status[KEY] = DONE
    await book.look([KEY])
    assert status_of(book) is DONE
    before = len(runs.peeked)
    await book.look([KEY])
    assert len(runs.peeked) == before, "nothing is new"


async def test_what_is_gone_is_not_shown_as_running_for_ever(book: RecentRuns, runs: Runs) -> None:
    await book.look([KEY])
    book.receive(said("ended"))
    del runs.status[KEY]
    await book.look([KEY])
    assert status_of(book) is None
    assert book.latest(None, 10) == []


async def test_what_was_seen_ended_stays_shown_when_it_is_gone(
    book: RecentRuns, runs: Runs
) -> None:
    runs.status[KEY] = DONE
    book.receive(said("ended"))
    await book.look([KEY])
    del runs.status[KEY]
    book.receive(said("ended"))
    await book.look([KEY])
    assert status_of(book) is DONE


async def test_a_step_whose_report_was_too_large_to_read_has_no_times(
    book: RecentRuns, runs: Runs
) -> None:
    runs.status[KEY] = DONE
    runs.body[KEY] = b""
    await book.look([KEY])
    seen = book.seen(KEY)
    assert seen is not None
    [step] = seen.steps
    assert (step["state"], step["started_us"], step["elapsed"]) == ("completed", 0, None)
    assert book.steps(None) == [], "no duration is made up"


@pytest.mark.parametrize(
    ("origin", "seconds"), [(pb.STEP_ORIGIN_UNSPECIFIED, [1.0]), (pb.STEP_ORIGIN_MEMOISED, [])]
)
async def test_a_memoised_step_says_so_and_its_time_is_nobodys_duration(
    book: RecentRuns, runs: Runs, origin: pb.StepOrigin.ValueType, seconds: list[float]
) -> None:
    runs.status[KEY] = DONE
    report = pb.StepReport(started_us=2, origin=origin)
    report.elapsed.FromSeconds(1)
    runs.body[KEY] = pb.GetResultsResponse(steps={"a": report}).SerializeToString()
    await book.look([KEY])
    seen = book.seen(KEY)
    assert seen is not None
    assert seen.steps[0]["memoised"] is (not seconds)
    assert [row["count"] for row in book.steps(None)] == [1] * len(seconds)


async def test_what_was_seen_is_looked_at_again_after_announcements_were_lost(
    book: RecentRuns, runs: Runs
) -> None:
    await book.look([KEY])
    runs.status[KEY] = DONE
    await book.look([KEY])
    assert status_of(book) is LIVE, "nothing was heard of it"
    book.regained()
    await book.look([KEY])
    assert status_of(book) is DONE
