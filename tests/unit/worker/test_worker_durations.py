"""How long runs and their steps took: what one worker tells, and what several do."""

from __future__ import annotations

from headstart_service.domain import Claim, Job, Lease, RunKey, Spread, StepRecord, StepState
from headstart_service.store.worker_registry import about_of, worker_from
from headstart_service.worker.durations import (
    PROVIDERS,
    RUN,
    SLOT,
    Durations,
    expected_runs,
    joined,
)
from headstart_service.worker.worker_observer import (
    RunEnd,
    RunOutcome,
    StepEnd,
    StepOutcome,
)
from tests.contract.test_store_looks import state

KEPT = {"one": StepRecord("one", StepState.COMPLETED, b"")}


def claim(**kept: StepRecord) -> Claim:
    return Claim(Lease(Job(0, "1-1", RunKey("games", "g"), "1-1"), 1), 1, "chain", b"{}", kept, 0)


def ended(durations: Durations, name: str, state_: str, **kept: StepRecord) -> None:
    if name:
        with durations.step(claim(), name, step := StepOutcome()):
            step.state = StepEnd(state_)
    else:
        with durations.run(claim(**kept), run := RunOutcome()):
            run.state = RunEnd(state_)


def test_what_gave_its_result_counts_and_nothing_else() -> None:
    durations = Durations()
    ended(durations, "two", "failed")
    ended(durations, "two", "stopped")
    ended(durations, RUN, "failed")
    ended(durations, RUN, "completed", **KEPT)  # others had done a part of it
    assert durations.table() == {}
    ended(durations, "two", "completed")
    ended(durations, RUN, "completed")
    table = durations.table()
    known = {step: spread.samples for step, spread in table["chain"].items()}
    assert known == {"two": 1, RUN: 1, SLOT: 1}


def test_the_last_ones_are_remembered_with_their_median_and_ninth_tenth() -> None:
    durations = Durations()
    for seconds in (*([99.0] * 50), *range(1, 65)):
        durations.note("chain", "one", float(seconds))
    assert durations.table() == {"chain": {"one": Spread(33_000_000, 58_000_000, 64)}}


def test_workers_count_by_how_much_they_know() -> None:
    tables = [{"chain": {RUN: Spread(100, 200, 1)}}, {"chain": {RUN: Spread(500, 600, 3)}}, {}]
    assert joined(tables) == {"chain": {RUN: Spread(400, 500, 4)}}


def test_the_store_receives_what_runs_take() -> None:
    durations = Durations()
    durations.note("chain", RUN, 1.5)
    durations.note("chain", "one", 1.0)
    assert durations.expected() == {"chain": 1_500_000}
    assert expected_runs({"chain": {"one": Spread(1, 1, 1)}}) == {}


def test_a_worker_reports_its_durations_and_an_older_one_reports_none() -> None:
    durations = Durations()
    durations.note("chain", "one", 0.25)
    told = state("w1")
    text = about_of(
        type(told)(
            **{**{f: getattr(told, f) for f in told.__slots__}, "durations": durations.table()}
        )
    )
    found = worker_from(text.encode())
    assert found is not None
    assert found.durations == durations.table()
    older = worker_from(text.replace('"durations"', '"other"').encode())
    assert older is not None
    assert older.durations == {}
    assert worker_from(text.replace("250000", '"x"').encode()) is None


def test_the_wait_for_a_provider_is_not_part_of_a_step_and_stands_by_itself() -> None:
    waits = {"language_model": 20.0, "http": 0.0}
    durations = Durations(lambda: waits)
    with durations.step(claim(), "one", outcome := StepOutcome()):
        outcome.state = StepEnd.COMPLETED
        outcome.meter.waited = 60.0
    table = durations.table()
    assert table["chain"]["one"] == Spread(0, 0, 1)
    assert table[PROVIDERS] == {"language_model": Spread(20_000_000, 20_000_000, 1)}
    waits.clear()
    assert PROVIDERS not in durations.table()
