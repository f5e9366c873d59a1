"""When the missing steps of a run will have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api.results.answer import answer_from
from headstart_service.api.results.estimates import Estimate, Estimates
from headstart_service.domain import Lack, Snapshot, Spread, Status, StepState, WorkerState
from headstart_service.pipeline.registry import Registry
from headstart_service.values.fragments import report_fragment
from headstart_service.worker.durations import PROVIDERS
from tests.support.item_pipelines import CARRIERS
from tests.support.pipelines import CHAIN
from tests.support.provider_pipelines import PATIENT
from tests.support.run_store import FakeRunStore
from tests.unit.api.conftest import summary_of

PENDING, RUNNING, COMPLETED = StepState.PENDING, StepState.RUNNING, StepState.COMPLETED
SECOND = 1_000_000
TOOK = {
    name: Spread(p50 * SECOND, p90 * SECOND, 9)
    for name, p50, p90 in (
        ("one", 2, 3),
        ("two", 4, 6),
        ("three", 1, 10),
        ("", 70, 190),
        ("*", 7, 19),
    )
}
NOW = 500 * SECOND


def crew_of(slots: int = 2, busy: int = 0, durations: Mapping[str, Spread] = TOOK) -> FakeRunStore:
    """A store in which two workers are registered."""
    made = FakeRunStore()
    made.registered = [
        WorkerState(
            name=name,
            host="",
            version="",
            pipelines=("chain",),
            slots=slots // 2,
            busy=busy // 2,
            started_us=0,
            durations={"chain": durations},
        )
        for name in ("w1", "w2")
    ]
    return made


def run(
    one: StepState, two: StepState, three: StepState, *, ahead: int | None = None, had: int = 0
) -> Snapshot:
    states = {"one": one, "two": two, "three": three}
    fragments = {
        name: report_fragment(name, state, started_us=NOW - had * SECOND)
        for name, state in states.items()
        if state is not PENDING
    }
    running = {name: fragments[name] for name, state in states.items() if state is RUNNING}
    summary = summary_of(Status.PENDING if ahead is not None else Status.IN_PROGRESS, 1)
    lives_for = (summary.expires_us - NOW) / SECOND
    summary = type(summary)(
        **{f: getattr(summary, f) for f in summary.__slots__} | {"pipeline": "chain"}
    )
    body = b"".join(fragments.values())
    return Snapshot(summary, "run-1", states, body, lives_for, running, ahead)


async def known(crew: FakeRunStore, partitions: int = 1) -> Estimates:
    estimates = Estimates(crew.workers, Registry([CHAIN]), partitions)
    await estimates.ask()
    return estimates


def seconds(**steps: tuple[float, float]) -> dict[str, Estimate]:
    return {
        name: Estimate(round(p50 * SECOND), round(p90 * SECOND))
        for name, (p50, p90) in steps.items()
    }


async def test_steps_take_their_time_one_after_the_other() -> None:
    estimates = await known(crew_of())
    assert estimates.of(run(PENDING, PENDING, PENDING)) == seconds(
        one=(2, 3), two=(6, 9), three=(7, 19)
    )
    assert estimates.of(run(COMPLETED, PENDING, PENDING)) == seconds(two=(4, 6), three=(5, 16))


async def test_what_a_running_step_has_had_counts() -> None:
    estimates = await known(crew_of())
    found = estimates.of(run(COMPLETED, RUNNING, PENDING, had=1))
    assert found == seconds(two=(3, 5), three=(4, 15))


async def test_a_run_that_no_worker_can_take_has_no_estimate() -> None:
    estimates = await known(crew_of())
    waits = run(PENDING, PENDING, PENDING, ahead=0)
    assert estimates.of(waits) == seconds(one=(2, 3), two=(6, 9), three=(7, 19))
    left = replace(waits, summary=replace(waits.summary, lacks=Lack.VERSION))
    assert estimates.of(left) == {}


async def test_a_step_that_is_overdue_is_not_said_to_end_at_once() -> None:
    estimates = await known(crew_of())
    found = estimates.of(run(COMPLETED, RUNNING, PENDING, had=60))
    assert found == seconds(two=(0.4, 0.6), three=(1.4, 10.6))


async def test_the_queue_ahead_comes_first() -> None:
    estimates = await known(crew_of(slots=2))
    assert estimates.of(run(PENDING, PENDING, PENDING, ahead=0)) == seconds(
        one=(2, 3), two=(6, 9), three=(7, 19)
    )
    queued = estimates.of(run(PENDING, PENDING, PENDING, ahead=4))
    assert queued["one"] == Estimate((14 + 2) * SECOND, (38 + 3) * SECOND)
    busy = await known(crew_of(slots=2, busy=2), partitions=4)
    assert (
        busy.of(run(PENDING, PENDING, PENDING, ahead=1))["one"].p50
        == (5 * 7 // 2 + 2) * SECOND + SECOND // 2
    )


async def test_the_queue_ahead_is_for_workers_of_the_pool_alone() -> None:
    crew = crew_of(slots=2)
    elsewhere = replace(crew.registered[0], name="g1", slots=60, busy=0, pools=("gpu",))
    crew.registered.append(elsewhere)
    estimates = await known(crew)
    queued = estimates.of(run(PENDING, PENDING, PENDING, ahead=4))
    assert queued["one"] == Estimate((14 + 2) * SECOND, (38 + 3) * SECOND)
    crew.registered = [elsewhere]
    await estimates.ask()
    assert estimates.of(run(PENDING, PENDING, PENDING, ahead=4)) == {}


async def test_nothing_is_said_of_what_is_not_known() -> None:
    crew = crew_of()
    estimates = Estimates(crew.workers, Registry([CHAIN]), 1)
    assert estimates.of(run(PENDING, PENDING, PENDING)) == {}, "nobody waits for the first look"
    known_of = {name: TOOK[name] for name in ("one", "three")}
    crew.registered = crew_of(durations=known_of).registered
    partly = await known(crew)
    assert set(partly.of(run(PENDING, PENDING, PENDING))) == {"one"}, "who needs it is not known"
    nobody = await known(crew_of(slots=0))
    assert nobody.of(run(PENDING, PENDING, PENDING, ahead=0)) == {}, "no worker, no turn"
    await estimates.aclose()


async def test_workers_are_asked_rarely_and_an_outage_forgets_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crew = crew_of()
    estimates = await known(crew)
    for _ in range(50):
        estimates.of(run(PENDING, PENDING, PENDING))
        await asyncio.sleep(0)
    assert len(crew.calls) == 1
    crew.away = True
    await estimates.ask()
    assert len(crew.calls) == 2
    assert estimates.of(run(PENDING, PENDING, PENDING))
    assert estimates.expected() == {"chain": 70 * SECOND}


async def test_an_answer_has_the_estimates_beside_what_it_had_before() -> None:
    estimates = await known(crew_of())
    snapshot = run(COMPLETED, RUNNING, PENDING, had=1)
    answer = answer_from(snapshot, estimates.of)
    told = pb.GetResultsResponse.FromString(answer.data)
    assert told.steps["two"].estimate.p50.seconds == 3
    assert told.steps["two"].state == pb.STEP_STATE_RUNNING
    assert told.steps["two"].started_us == NOW - SECOND
    assert told.steps["three"].estimate.p90.seconds == 15
    assert told.steps["three"].state == pb.STEP_STATE_PENDING
    assert not told.steps["one"].HasField("estimate")
    for step in told.steps.values():
        step.ClearField("estimate")
    assert told == pb.GetResultsResponse.FromString(answer_from(snapshot).data)


async def test_an_estimate_alone_is_no_news() -> None:
    estimates = await known(crew_of())
    first = answer_from(run(COMPLETED, RUNNING, PENDING, had=1), estimates.of)
    plain = answer_from(run(COMPLETED, RUNNING, PENDING, had=1))
    assert first.data != plain.data
    assert first.news == plain.news == plain.data


async def test_a_step_waits_for_its_turn_at_a_provider_first() -> None:
    crew = crew_of()
    waits = {PROVIDERS: {"language_model": Spread(20 * SECOND, 20 * SECOND, 1)}}
    took = {"patient": Spread(2 * SECOND, 3 * SECOND, 9)}
    crew.registered = [
        replace(each, durations={"patient": took} | waits) for each in crew.registered
    ]
    estimates = Estimates(crew.workers, Registry([PATIENT]), 1)
    await estimates.ask()
    for state, had, expected in ((PENDING, 0, (22, 23)), (RUNNING, 9, (13, 14))):
        found = run(state, state, state, had=had)
        summary = replace(found.summary, pipeline="patient")
        running = {"patient": report_fragment("patient", state, started_us=NOW - had * SECOND)}
        waiting = replace(found, summary=summary, states={"patient": state}, running=running)
        assert estimates.of(waiting) == seconds(patient=expected)


async def test_a_step_ends_by_how_long_its_items_take_and_answers_keep_its_count() -> None:
    items = pb.ItemProgress(total=40, completed=20, failed=3, running=8)
    items.estimate.p50.FromSeconds(2)
    items.estimate.p90.FromSeconds(5)
    fragment = report_fragment("rates", RUNNING, started_us=NOW, items=items)
    base = run(PENDING, PENDING, PENDING)
    summary = replace(base.summary, pipeline="carriers")
    states = {"rates": RUNNING, "cheapest": PENDING}
    snapshot = replace(
        base, summary=summary, states=states, body=fragment, running={"rates": fragment}
    )
    estimates = Estimates(crew_of().workers, Registry([CARRIERS]), 1)
    # 17 are left, 8 at a time: two turns as usual, and one that is slow.
    assert estimates.of(snapshot) == seconds(rates=(6, 9))
    answer = answer_from(snapshot, estimates.of)
    report = pb.GetResultsResponse.FromString(answer.data).steps["rates"]
    assert (report.items.completed, report.estimate.p90.seconds) == (20, 9)
