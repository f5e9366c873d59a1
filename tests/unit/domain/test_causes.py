"""Each cause is named from the facts that show it, and from no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headstart_service.domain import Lack, PoolStats
from headstart_service.domain.causes import CHECKS, LONG, Facts, causes
from headstart_service.domain.permits import ProviderState, WaitsFor

WELL = Facts(
    queued=3,
    running=5,
    workers=2,
    pending={"shop": 3},
    all_pending=3,
    kept=10,
    kept_in={"shop": 6},
    room=1000,
    store_trip=0.002,
    certificate_left=60,
)
FULL = replace(WELL, queued=12, running=64, waits=True)
FLOOD = replace(WELL, pending={"shop": 150, "quiz": 20}, all_pending=200, kept=400)
PLACES = replace(FLOOD, room=300)

PROVIDER = ProviderState(name="a/m", ending="timeout")
CASES: dict[str, tuple[Facts, str, str]] = {
    "away": (replace(WELL, store_problem="Redis does not answer"), "store", "does not answer"),
    "slow": (replace(WELL, store_trip=0.12), "slow store", "a round trip takes 120 ms"),
    "no worker": (
        replace(WELL, workers=0, waits=True),
        "no worker",
        "no worker is running: 3 runs wait",
    ),
    "no worker, by a run": (
        replace(WELL, queued=1, workers=None, lacks={"probe": Lack.WORKER}),
        "no worker",
        "no worker is running: 1 run waits",
    ),
    "no worker for a pipeline": (
        replace(WELL, unserved={"probe": 3}, lacks={"probe": Lack.PIPELINE}),
        "unserved",
        "no worker has the pipeline probe: 3 runs wait",
    ),
    "no worker for a version": (
        replace(WELL, lacks={"probe": Lack.VERSION}),
        "unserved",
        "no worker has this version of the pipeline probe",
    ),
    "no worker for some reason": (
        replace(WELL, unserved={"a": 1, "b": 2}),
        "unserved",
        "no worker can compute a: 1 run waits; no worker can compute b: 2 runs wait",
    ),
    "no worker for the pools of a run's steps": (
        replace(
            WELL,
            pools={"default": PoolStats(0, 1, 2), "gpu": PoolStats(2, 0, 0)},
            unserved={"probe": 2},
        ),
        "pool",
        "no worker serves the pool gpu: 2 runs wait",
    ),
    "no worker for a pool": (
        replace(
            WELL,
            pools={"default": PoolStats(0, 5, 2), "gpu": PoolStats(3, 0, 0)},
            unserved={"probe": 3},
            lacks={"probe": Lack.POOL},
        ),
        "pool",
        "no worker serves the pool gpu: 3 runs wait",
    ),
    "a full pool": (
        replace(FULL, pools={"default": PoolStats(0, 4, 2), "gpu": PoolStats(12, 60, 1)}),
        "full",
        "all workers of the pool gpu are full: 12 runs wait while 64 run",
    ),
    "a pool whose runs wait too long": (
        replace(
            FULL,
            waits=False,
            pools={"default": PoolStats(9, 4, 2, 0.1), "gpu": PoolStats(3, 60, 1, LONG)},
            step_runs=2,
            running_step_runs=1,
        ),
        "full",
        "all workers of the pool gpu are full: 12 runs and steps of runs wait while 65 run",
    ),
    "full": (FULL, "full", "all workers are full: 12 runs wait while 64 run"),
    "idle": (
        replace(FULL, running=0),
        "idle",
        "no worker takes jobs: 12 runs wait, and none runs",
    ),
    "flood": (
        FLOOD,
        "flood",
        "the namespace shop holds 75% of the queue: 150 of 200 pending runs",
    ),
    "flood of places": (
        PLACES,
        "flood",
        "150 of 200 pending runs, and 150 of all 300 places",
    ),
    "no room": (
        replace(WELL, all_pending=995, pending={}),
        "room",
        "every place is held, starts are refused: 1000 of 1000 runs have not ended",
    ),
    "failing provider": (
        replace(WELL, providers=[PROVIDER, replace(PROVIDER, opened=1)]),
        "provider",
        "a/m fails, last by timeout: the circuit breaker is open",
    ),
    "refusing provider": (
        replace(WELL, providers=[replace(PROVIDER, paused=3)]),
        "provider",
        "a/m refuses calls, last by timeout: all workers pause, for another 3.0 s",
    ),
    "limited provider": (
        replace(WELL, providers=[replace(PROVIDER, waits_for=WaitsFor.CALLS)]),
        "provider",
        "a/m: calls wait for their turn within calls_a_minute",
    ),
    "budget": (
        replace(WELL, over_budget={"shop": 5000}),
        "budget",
        "namespace shop has used up its 5,000 tokens of today",
    ),
    "certificate ends": (
        replace(WELL, certificate_left=3.2),
        "certificate",
        "the certificate ends in 3 days",
    ),
    "certificate has ended": (
        replace(WELL, certificate_left=-1),
        "certificate",
        "the certificate has ended",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_cause_is_named_with_its_figures_and_a_cure(case: str) -> None:
    facts, name, found = CASES[case]
    [cause] = causes(facts)
    assert cause.name == name
    assert found in cause.found
    assert not cause.found.endswith(".")
    assert cause.advice


@pytest.mark.parametrize(
    "facts",
    [
        Facts(),
        WELL,
        replace(WELL, queued=0, workers=0),
        replace(FULL, waits=False),
        replace(FULL, unserved={}, queued=0),
        replace(FLOOD, pending={"shop": 99}),
        replace(FLOOD, all_pending=99),
        replace(FLOOD, kept=150, kept_in={"shop": 150}),
    ],
    ids=[
        *("nothing known", "well", "scaled to zero", "a moment's queue"),
        *("busy without a queue", "less than half", "few", "nobody else is there"),
    ],
)
def test_what_is_usual_has_no_cause(facts: Facts) -> None:
    assert causes(facts) == []


def test_a_missing_worker_explains_what_would_follow_from_it() -> None:
    facts = replace(FULL, workers=0, unserved={"probe": 2})
    assert [cause.name for cause in causes(facts)] == ["no worker"]


def test_every_check_has_a_case() -> None:
    for check in CHECKS:
        assert any(check(facts) for facts, *_ in CASES.values()), check
