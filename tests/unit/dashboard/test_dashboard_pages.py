"""What the live page shows, to the last field: pictures, step durations, runs and event streams."""

from __future__ import annotations

from typing import Any

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.dashboard.access import View
from headstart_service.dashboard.call_counters import Counters
from headstart_service.dashboard.failures import FailureLog
from headstart_service.dashboard.recent_runs import RecentRuns
from headstart_service.dashboard.run_view import RunView, run_view
from headstart_service.dashboard.snapshots import Snapshots
from headstart_service.domain import (
    Announcement,
    EventKind,
    FailureReason,
    Lack,
    PoolStats,
    RunKey,
    RunSummary,
    Stats,
    Status,
    StepState,
    UnservedStep,
    WorkerState,
)
from headstart_service.domain.errors import RecordDamaged, StoreUnavailable
from headstart_service.pipeline.registry import Registry
from tests.support.pipelines import PROBE
from tests.support.run_store import FakeRunStore

ALL = View(None, whole=True)
REGISTRY = Registry([PROBE])


def summary(name: str, status: Status, *, namespace: str = "shop", **told: Any) -> RunSummary:
    times = {"created_us": 100, "started_us": 0, "completed_us": 900 if status.ended else 0}
    fields = times | {"revision": 1, "expires_us": 999, "error": ""} | told
    return RunSummary(key=RunKey(namespace, name), pipeline="probe", status=status, **fields)


def report(seconds: float | None, started_us: int = 150, **told: Any) -> pb.StepReport:
    made = pb.StepReport(started_us=started_us, **told)
    if seconds is not None:
        made.elapsed.FromMicroseconds(round(seconds * 1e6))
    return made


def book_of(store: Any) -> RecentRuns:
    return RecentRuns(store, REGISTRY)


def snapshots_of(store: Any, about: dict[str, Any] | None = None) -> tuple[Snapshots, Counters]:
    counters = Counters()
    return Snapshots(store, book_of(store), counters, about or {}), counters


def said(kind: str, key: RunKey) -> Announcement:
    return Announcement(EventKind(kind), key, "run-1")


def many(number: int, namespace: str = "shop") -> list[RunKey]:
    return [RunKey(namespace, f"k{i:04}") for i in range(number)]


# What is told of one run.


async def test_a_run_is_reported_with_every_field_of_its_own_and_of_its_steps() -> None:
    failed = summary(
        "k",
        Status.FAILED,
        revision=3,
        started_us=120,
        completed_us=900,
        error="e" * 600,
        failure_reason=FailureReason.TIMED_OUT,
        lacks=Lack.VERSION,
        unserved_steps=(UnservedStep("gated", "gpu", Lack.POOL),),
    )
    store = FakeRunStore(failed)
    store.states[failed.key] = {
        "first": StepState.COMPLETED,
        "gated": StepState.FAILED,
        "unknown": StepState.PENDING,
    }
    store.reports[failed.key] = {
        "first": report(1.5, started_us=50, attempts=1),
        "gated": report(0.25, attempts=2, error="x" * 600, failure_reason=pb.FAILURE_REASON_SHED),
    }
    items = pb.ItemProgress(total=9, completed=1, failed=2, running=3)
    store.reports[failed.key]["gated"].items.CopyFrom(items)
    told = run_view(await store.inspect(failed.key), REGISTRY).as_json()
    first, gated = PROBE.by_name["first"], PROBE.by_name["gated"]
    assert told == {
        "namespace": "shop",
        "key": "k",
        "pipeline": "probe",
        "revision": 3,
        "status": "failed",
        "attempt": 2,
        "worker": "w1",
        "created_us": 100,
        "started_us": 120,
        "completed_us": 900,
        "expires_us": 999,
        "error": "e" * 500,
        "failure_reason": "timed_out",
        "pool": "default",
        "waits": "no worker has this version of the pipeline",
        "steps": [
            {
                "name": "first",
                "state": "completed",
                "needs": [],
                "pool": "default",
                "waits": "",
                "items": None,
                "required": True,
                "started_us": 50,
                "elapsed": 1.5,
                "attempts": 1,
                "max_attempts": first.max_attempts,
                "kept": True,  # begun before this run was started
                "memoised": False,
                "progress": None,
                "error": "",
                "failure_reason": "",
            },
            {
                "name": "gated",
                "state": "failed",
                "needs": ["first"],
                "pool": "default",
                "waits": "no worker serves the pool gpu",
                "items": {"total": 9, "completed": 1, "failed": 2, "running": 3},
                "required": False,
                "started_us": 150,
                "elapsed": 0.25,
                "attempts": 2,
                "max_attempts": gated.max_attempts,
                "kept": False,
                "memoised": False,
                "progress": None,
                "error": "x" * 500,
                "failure_reason": "shed",
            },
            {
                "name": "unknown",
                "state": "pending",
                "needs": [],
                "pool": "",
                "waits": "",
                "items": None,
                "required": False,
                "started_us": 0,
                "elapsed": None,
                "attempts": 0,
                "max_attempts": 0,
                "kept": False,
                "memoised": False,
                "progress": None,
                "error": "",
                "failure_reason": "",
            },
        ],
    }


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"expires_us": 5}, True),
        ({"status": Status.FAILED}, False),
        ({"created_us": 5}, False),
        ({"completed_us": 5}, False),
    ],
)
async def test_two_reads_saw_the_same_end_if_status_and_times_are_the_same(
    changed: dict[str, Any], *, same: bool
) -> None:
    async def seen(**told: Any) -> RunView:
        status = told.pop("status", Status.COMPLETED)
        run = summary("k", status, **told)
        return run_view(await FakeRunStore(run).inspect(run.key), REGISTRY)

    assert (await seen()).same_end(await seen(**changed)) is same


# What the book remembers, and how much.


async def test_durations_are_reported_by_step_in_the_pipelines_order() -> None:
    runs = [summary(f"k{i}", Status.COMPLETED) for i in range(20)]
    other = summary("theirs", Status.COMPLETED, namespace="other")
    store = FakeRunStore(*runs, other)
    for number, run in enumerate((*runs, other)):
        failed = number in (3, 4)
        store.states[run.key] = {
            "first": StepState.COMPLETED,
            "former": StepState.COMPLETED,
            "gated": StepState.FAILED if failed else StepState.COMPLETED,
        }
        kept = report(9.0, started_us=50)  # begun before this run: another's work
        store.reports[run.key] = {
            "gated": report(number + 1.0, error="broken" if failed else ""),
            "first": report(0.5) if number < 2 else kept,
            "former": report(3.0) if number == 0 else report(None),
        }
    book = book_of(store)
    await book.look(list(store.runs))
    assert book.steps(frozenset({"shop"})) == [
        {
            "pipeline": "probe",
            "step": "first",
            "count": 2,
            "failed": 0,
            "p50": 0.5,
            "p95": 0.5,
            "max": 0.5,
        },
        {
            "pipeline": "probe",
            "step": "gated",
            "count": 20,
            "failed": 2,
            "p50": 11.0,
            "p95": 20.0,
            "max": 20.0,
        },
        {
            "pipeline": "probe",
            "step": "former",
            "count": 1,
            "failed": 0,
            "p50": 3.0,
            "p95": 3.0,
            "max": 3.0,
        },
    ]
    assert [row["count"] for row in book.steps(None)] == [2, 21, 1]
    assert [row["max"] for row in book.steps(frozenset({"other"}))] == [21.0]
    await book.look(list(store.runs))
    book.regained()
    await book.look(list(store.runs))
    assert [row["count"] for row in book.steps(None)] == [2, 21, 1], "each end counts once"
    [group] = book.failures.groups(None, 9)
    assert (group["reason"], group["count"]) == ("gated: broken", 2)


async def test_a_failed_runs_reason_is_its_own_and_not_its_steps() -> None:
    run = summary("k", Status.FAILED, error="first: no such word")
    store = FakeRunStore(run)
    store.states[run.key] = {"first": StepState.FAILED, "gated": StepState.FAILED}
    store.reports[run.key] = {"first": report(1, error="a"), "gated": report(1, error="b")}
    book = book_of(store)
    book.note_failed([run])
    await book.look([run.key])
    [group] = book.failures.groups(None, 9)
    assert (group["reason"], group["count"], group["last_us"]) == ("first: no such word", 1, 900)


async def test_of_many_durations_the_last_256_count_and_of_many_steps_200_are_kept() -> None:
    runs = [summary(f"k{i:03}", Status.COMPLETED) for i in range(300)]
    store = FakeRunStore(*runs)
    for number, run in enumerate(runs):
        store.states[run.key] = {"first": StepState.COMPLETED, f"s{number}": StepState.COMPLETED}
        store.reports[run.key] = {"first": report(number), f"s{number}": report(1.0)}
    book = book_of(store)
    for run in runs:
        await book.look([run.key])
    rows = {row["step"]: row for row in book.steps(None)}
    assert len(rows) <= 200
    assert "s299" in rows
    assert "s0" not in rows
    alone = FakeRunStore(*runs)
    alone.reports = {run.key: {"first": report(number)} for number, run in enumerate(runs)}
    book = book_of(alone)
    for run in runs:
        await book.look([run.key])
    [row] = book.steps(None)
    assert (row["count"], row["max"], row["p50"]) == (256, 299.0, 300 - 128)


async def test_one_refresh_reads_32_runs_and_the_next_one_the_others() -> None:
    runs = [summary(f"k{i:03}", Status.IN_PROGRESS) for i in range(50)]
    store = FakeRunStore(*runs)
    book = book_of(store)
    keys = [run.key for run in runs]
    await book.look(keys)
    assert store.inspected == keys[:32]
    await book.look(keys)
    assert store.inspected == keys


def test_the_last_400_ended_runs_are_known_the_latest_first() -> None:
    book = book_of(FakeRunStore())
    keys = many(500)
    for key in keys:
        book.receive(said("ended" if int(key.key[1:]) % 2 else "cancelled", key))
    assert book.latest(None, 1000) == keys[:99:-1]
    book.receive(said("ended", keys[200]))
    book.receive(said("started", keys[499]))
    book.receive(said("step", keys[0]))
    assert book.latest(None, 2) == [keys[200], keys[498]]
    assert book.latest(frozenset({"other"}), 5) == []
    book.receive(said("ended", RunKey("other", "k")))
    assert book.latest(frozenset({"shop"}), 1) == [keys[200]]


def test_runs_that_ended_before_stand_behind_those_that_were_announced() -> None:
    book = book_of(FakeRunStore())
    heard = RunKey("shop", "heard")
    book.receive(said("ended", heard))
    ended = [
        summary(name, Status.COMPLETED, completed_us=at)
        for name, at in (("b", 20), ("a", 10), ("c", 30), ("heard", 1))
    ]
    book.remember(ended)
    assert [key.key for key in book.latest(None, 9)] == ["heard", "c", "b", "a"]
    book.remember(summary(f"m{i:04}", Status.COMPLETED, completed_us=i) for i in range(500))
    assert len(book.latest(None, 1000)) == 400


async def test_the_last_500_runs_that_were_seen_are_kept() -> None:
    runs = [summary(f"k{i:04}", Status.IN_PROGRESS) for i in range(520)]
    book = book_of(FakeRunStore(*runs))
    for first in range(0, len(runs), 32):
        await book.look([run.key for run in runs[first : first + 32]])
    seen = [run.key for run in runs if book.seen(run.key)]
    assert seen == [run.key for run in runs[20:]]


async def test_no_more_than_500_unreadable_runs_are_remembered() -> None:
    store = FakeRunStore()
    keys = many(510)
    store.fails = {key: RecordDamaged(str(key)) for key in keys}
    book = book_of(store)
    for first in range(0, len(keys), 32):
        await book.look(keys[first : first + 32])
    store.calls.clear()
    await book.look(keys[10:42])
    assert store.inspected == []
    await book.look(keys[:10])
    assert store.inspected == keys[:10]
    book.regained()
    store.calls.clear()
    await book.look(keys[100:102])
    assert store.inspected == keys[100:102], "what is said of it may have been missed"


def test_failures_are_counted_for_the_last_4096_runs_and_the_latest_group_comes_first() -> None:
    log = FailureLog()
    for number in range(4097):
        log.add(RunKey("shop", f"k{number}"), 1, 1, "probe", number, "first: broken")
    log.add(RunKey("shop", "k4096"), 1, 1, "probe", 1, "first: broken")  # counted before
    [group] = log.groups(None, 9)
    assert (group["count"], group["last_us"]) == (4097, 4096)
    log.add(RunKey("shop", "k0"), 1, 1, "probe", 7, "first: broken")  # forgotten meanwhile
    log.add(RunKey("shop", "k1"), 2, 1, "probe", 8, "other", "other")
    log.add(RunKey("shop", "k1"), 2, 2, "probe", 5000, "other")
    log.add(RunKey("shop", "k1"), 2, 3, "another", 9, "other")
    told = log.groups(None, 9)
    assert [(each["pipeline"], each["reason"], each["count"]) for each in told] == [
        ("probe", "other", 3),
        ("probe", "first: broken", 4098),
        ("another", "other", 1),
    ]
    assert log.groups(None, 1) == told[:1]


# Pictures.


async def test_a_picture_of_all_shows_runs_counts_workers_and_calls() -> None:
    running = [summary(f"r{i}", Status.IN_PROGRESS, created_us=50 - i) for i in range(2)]
    waiting = [summary(f"w{i:02}", Status.PENDING, created_us=90 - i) for i in range(70)]
    failed = summary("f", Status.FAILED, error="first: broken")
    done = summary("d", Status.COMPLETED, completed_us=901)
    store = FakeRunStore(*running, *waiting, failed, done)
    gpu = {"gpu": PoolStats(9, 2, 1, 4.5)}
    counted = {Status.PENDING: 70, Status.FAILED: 1}
    store.stats_of[""] = Stats(counted, 80, pools=gpu, pending_step_runs=9)
    worker = WorkerState(
        name="w1", host="h", version="1", pipelines=("probe",), slots=4, busy=1, started_us=1
    )
    store.registered = [worker]
    snapshots, counters = snapshots_of(store, {"host": "h"})
    counters.announced = True
    counters.turn()
    counters.ended("GetStatus", "OK", 0.1)
    counters.receive(said("started", failed.key))
    counters.turn()
    told = await snapshots.take(ALL)
    assert (told["store"], told["whole"], told["namespaces"]) == ("there", True, None)
    assert told["process"] == {"host": "h"}
    assert told["calls"] == [["GetStatus", "OK", 1]]
    assert (told["counts"], told["queued"]) == ({"pending": 70, "failed": 1}, 71)
    assert [run["key"] for run in told["live"]] == [
        *("r1", "r0"),  # what runs, and of that the oldest, is first
        *(f"w{i:02}" for i in range(59, 1, -1)),
    ]
    assert [run["key"] for run in told["recent"]] == ["d", "f"]
    assert [each["name"] for each in told["workers"]] == ["w1"]
    figures = {"queued": 9, "running": 2, "workers": 1, "oldest_wait": 4.5}
    assert told["pools"] == [{"name": "gpu"} | figures]
    assert [group["reason"] for group in told["failures"]] == ["first: broken"]
    assert (told["second"]["starts"], told["second"]["queued"]) == (1, 71)
    assert snapshots.history(ALL)[-1] == told["second"]
    statuses = [(Status.IN_PROGRESS,), (Status.PENDING,), (Status.FAILED,)]
    ended = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
    quiet = True  # each second's look must not be logged
    assert store.asked("list") == [
        *(
            ("", each, None, most, quiet)
            for each, most in zip(statuses, (60, 60, 100), strict=True)
        ),
        ("", ended, None, 100, quiet),
    ]
    store.calls.clear()
    await snapshots.take(ALL)
    assert len(store.asked("list")) == 3, "ended runs are taken over once"
    snapshots.regained()
    await snapshots.take(ALL)
    assert len(store.asked("list")) == 7


async def test_a_picture_of_some_namespaces_sums_their_counts_and_shows_nobody_elses() -> None:
    mine = summary("mine", Status.PENDING)
    theirs = summary("theirs", Status.PENDING, namespace="other")
    store = FakeRunStore(mine, theirs)
    store.stats_of["shop"] = Stats({Status.PENDING: 1}, 99)
    store.stats_of["quiz"] = Stats({Status.PENDING: 2, Status.FAILED: 1}, 99)
    snapshots, counters = snapshots_of(store)
    counters.turn()
    told = await snapshots.take(View(frozenset({"shop", "quiz"}), whole=False))
    assert told["namespaces"] == ["quiz", "shop"]
    assert (told["counts"], told["queued"]) == ({"pending": 3, "failed": 1}, 3)
    assert [run["key"] for run in told["live"]] == ["mine"]
    assert not {"workers", "process", "calls"} & set(told)
    assert counters.past[-1].queued is None
    names = frozenset(f"n{i:02}" for i in range(12))
    store.calls.clear()
    told = await snapshots.take(View(names, whole=False))
    assert store.asked("stats") == told["namespaces"] == sorted(names)[:8]


async def test_a_run_that_was_seen_before_it_was_started_anew_is_shown_as_it_is_listed() -> None:
    run = summary("k", Status.IN_PROGRESS, started_us=120)
    store = FakeRunStore(run)
    snapshots, _ = snapshots_of(store)
    [seen] = (await snapshots.take(ALL))["live"]
    assert (seen["attempt"], seen["worker"], len(seen["steps"])) == (2, "w1", 1)
    anew = summary("k", Status.IN_PROGRESS, revision=2, created_us=500, started_us=600)
    store.runs[run.key] = anew  # and the announcement is still on its way
    [shown] = (await snapshots.take(ALL))["live"]
    assert shown == {
        "namespace": "shop",
        "key": "k",
        "pipeline": "probe",
        "revision": 2,
        "status": "in_progress",
        "attempt": 0,
        "worker": "",
        "created_us": 500,
        "started_us": 600,
        "completed_us": 0,
        "expires_us": 999,
        "error": "",
        "failure_reason": "",
        "pool": "",
        "waits": "",
        "steps": [],
    }


async def test_no_more_than_64_views_are_seeded() -> None:
    store = FakeRunStore()
    snapshots, _ = snapshots_of(store)
    for number in range(70):
        await snapshots.take(View(frozenset({f"n{number}"}), whole=False))
    assert sum(len(statuses) == 3 for _, statuses, *_ in store.asked("list")) == 64


async def test_while_the_store_is_away_what_was_seen_is_still_shown() -> None:
    done = summary("d", Status.COMPLETED)
    store = FakeRunStore(done)
    snapshots, _ = snapshots_of(store)
    assert [run["key"] for run in (await snapshots.take(ALL))["recent"]] == ["d"]
    store.fails["stats"] = StoreUnavailable("away")
    told = await snapshots.take(ALL)
    assert (told["store"], [run["key"] for run in told["recent"]]) == ("away", ["d"])
    assert "counts" not in told
