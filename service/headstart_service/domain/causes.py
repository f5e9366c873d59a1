"""Name the causes why a service does not do its work. doctor and the live page show them.

A cause is a function of `CHECKS`: it reads `Facts` and returns a `Cause` or None. A new cause
is a function here, and a field of `Facts` for what it must know. Each reader fills the fields that
it can read, and a field's default means that nothing is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from .accounting import PoolStats
from .permits import ProviderState, WaitsFor
from .runs import Lack

SLOW_STORE: Final = 0.05
"""Seconds of a round trip to Redis from which it is slow; a usual one takes a millisecond."""
CERTIFICATE_SOON: Final = 14.0
"""Days before its end from which a certificate is reported."""
LONG: Final = 5.0
"""Seconds of waiting from which a pool's workers are full."""
FLOOD: Final = 100
"""Pending runs below which no namespace floods the queue."""
_MOST: Final = 0.5
"""Share of the pending runs that makes a flood of one namespace's."""
_RUNBOOK: Final = "docs/operations.md#"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something does not work."""

    name: str
    """Short and stable, for scripts: a word or two."""
    found: str
    """The cause with its figures: a sentence without a full stop."""
    advice: str
    """What to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a service."""

    queued: int = 0
    """Runs that no worker has taken, `unserved` ones and step runs too."""
    running: int = 0
    step_runs: int = 0
    """Of the queued ones, steps of other pools than their run's."""
    running_step_runs: int = 0
    """Steps of other pools than their run's that run; `running` leaves them out."""
    unserved: Mapping[str, int] = field(default_factory=dict)
    """Pending runs that workers have met and cannot compute, by pipeline."""
    lacks: Mapping[str, Lack] = field(default_factory=dict)
    """Why no worker takes the pending runs of a pipeline, of those that were read."""
    workers: int | None = None
    """Workers that are alive."""
    pools: Mapping[str, PoolStats] = field(default_factory=dict)
    """What each pool has to do, and its workers."""
    waits: bool = False
    """Whether a run that some worker can compute has waited for a second or longer."""
    pending: Mapping[str, int] = field(default_factory=dict)
    """Pending runs by namespace: all of each that is named."""
    all_pending: int = 0
    kept: int = 0
    """Runs of all states, which hold a place each."""
    kept_in: Mapping[str, int] = field(default_factory=dict)
    """The same by namespace, of those that `pending` names."""
    room: int | None = None
    """Most runs that are kept."""
    store_problem: str = ""
    """Why Redis does not answer, or what it refuses, with the cure."""
    store_trip: float = 0.0
    """Seconds of a usual round trip to Redis."""
    certificate_left: float | None = None
    """Days until the served certificate ends; below 0 it has ended."""
    providers: Sequence[ProviderState] = ()
    """Those that steps called lately."""
    over_budget: Mapping[str, int] = field(default_factory=dict)
    """Namespaces that have used up their tokens of the day, each with its budget."""


def store_away(facts: Facts) -> Cause | None:
    """Redis does not answer, refuses, or is full."""
    if not facts.store_problem:
        return None
    # The reason of `store.refusals` has its own cure.
    return Cause("store", facts.store_problem, f"{_RUNBOOK}headstartstoreaway")


def store_slow(facts: Facts) -> Cause | None:
    """Redis answers, and takes long."""
    if facts.store_trip < SLOW_STORE:
        return None
    return Cause(
        "slow store",
        f"Redis answers slowly: a round trip takes {facts.store_trip * 1000:.0f} ms",
        f"give Redis a core of its own, near the server: {_RUNBOOK}headstartstoreslow",
    )


def no_worker(facts: Facts) -> Cause | None:
    """Runs wait, and no worker is alive."""
    if not facts.queued or not _without_workers(facts):
        return None
    return Cause(
        "no worker",
        f"no worker is running: {_runs(facts, facts.queued)}",
        f"start one, or see the log of the last one: {_RUNBOOK}headstartnoworker",
    )


def pool_without_workers(facts: Facts) -> Cause | None:
    """Workers are alive, and none serves a pool that has runs."""
    empty = {name: pool.queued for name, pool in facts.pools.items() if not pool.workers}
    empty = {name: queued for name, queued in sorted(empty.items()) if queued}
    if not empty or _without_workers(facts) or not any(p.workers for p in facts.pools.values()):
        return None
    found = "; ".join(f"no worker serves the pool {n}: {_runs(facts, q)}" for n, q in empty.items())
    return Cause(
        "pool",
        found,
        "start workers with that pool in HEADSTART_POOLS, or without that setting: "
        f"{_RUNBOOK}headstartpoolwithoutworkers",
    )


def unserved(facts: Facts) -> Cause | None:
    """Workers are alive, and none has the pipeline, or none its version."""
    if _without_workers(facts):
        return None
    others = {Lack.WORKER, Lack.POOL}  # which have causes of their own
    lacks = {name: lack for name, lack in facts.lacks.items() if lack not in others}
    in_pools = {name for name, lack in facts.lacks.items() if lack is Lack.POOL}
    names = sorted((facts.unserved.keys() - in_pools - _steps_elsewhere(facts)) | lacks.keys())
    if not names:
        return None
    found = []
    for name in names:
        reason = _LACKING.get(lacks.get(name), "no worker can compute {}")
        count = facts.unserved.get(name, 0)
        found.append(reason.format(name) + (f": {_runs(facts, count)}" if count else ""))
    return Cause(
        "unserved",
        "; ".join(found),
        "deploy workers with that pipeline in the version that the API has, or start these runs "
        f"again through an API whose pipelines the workers have: {_RUNBOOK}headstartunserved",
    )


def _steps_elsewhere(facts: Facts) -> set[str]:
    """Return the pipelines whose unserved runs are steps of pools without workers."""
    unknown = {n: count for n, count in facts.unserved.items() if n not in facts.lacks}
    room = sum(pool.queued for pool in facts.pools.values() if not pool.workers)
    return set(unknown) if sum(unknown.values()) <= room else set()


def workers_full(facts: Facts) -> Cause | None:
    """Runs wait for a slot, though workers are alive."""
    waiting = facts.queued - sum(facts.unserved.values())
    overdue = [n for n, pool in facts.pools.items() if pool.workers and pool.oldest_wait >= LONG]
    if waiting <= 0 or not (facts.waits or overdue) or _without_workers(facts):
        return None
    running = facts.running + facts.running_step_runs
    if not running:
        return Cause(
            "idle",
            f"no worker takes jobs: {_runs(facts, waiting)}, and none runs",
            f"see the worker's log, and GET /readyz on its HTTP port: {_RUNBOOK}headstartqueueold",
        )
    pools = sorted(overdue) or [
        name for name, pool in sorted(facts.pools.items()) if pool.queued and pool.workers
    ]
    whose = "all workers"
    if len(facts.pools) > 1 and pools:
        whose += f" of the pool {' and of '.join(pools)}"
    return Cause(
        "full",
        f"{whose} are full: {_runs(facts, waiting)} while {running} run",
        f"add workers, or find the step that became slow: {_RUNBOOK}headstartworkersfull",
    )


def flood(facts: Facts) -> Cause | None:
    """One of several namespaces holds most of the queue."""
    if facts.all_pending < FLOOD or not facts.pending:
        return None
    [(name, count)] = Counter(facts.pending).most_common(1)
    alone = facts.kept_in.get(name, facts.kept) >= facts.kept
    if alone or count < _MOST * facts.all_pending:
        return None
    share = count / facts.all_pending
    of_room = ""
    if facts.room is not None and count >= _MOST * facts.room:
        of_room = f", and {count} of all {facts.room} places"
    return Cause(
        "flood",
        f"the namespace {name} holds {share:.0%} of the queue: {count} of {facts.all_pending} "
        f"pending runs{of_room}",
        "ask its owner to start fewer, cancel them, or set HEADSTART_NAMESPACE_MAX_RESULTS: "
        f"{_RUNBOOK}headstartflood",
    )


def no_room(facts: Facts) -> Cause | None:
    """Every place is held by a run that has not ended."""
    held = facts.all_pending + facts.running
    if facts.room is None or held < facts.room:
        return None
    return Cause(
        "room",
        f"every place is held, starts are refused: {held} of {facts.room} runs have not ended",
        f"more workers, or a larger HEADSTART_MAX_CACHED_RESULTS: {_RUNBOOK}headstartrefusing",
    )


def certificate(facts: Facts) -> Cause | None:
    """The served certificate has ended, or ends soon."""
    left = facts.certificate_left
    if left is None or left >= CERTIFICATE_SOON:
        return None
    found = f"the certificate ends in {left:.0f} days" if left > 0 else "the certificate has ended"
    return Cause(
        "certificate",
        found,
        "renew it: the server reads its files again, without a restart: "
        f"{_RUNBOOK}headstartcertificateends",
    )


def provider_cause(state: ProviderState) -> Cause | None:
    """Return why calls of a provider fail or wait."""
    last = f", last by {state.ending}" if state.ending else ""
    if state.opened:
        return Cause(
            "provider",
            f"{state.name} fails{last}: the circuit breaker is open, one call at a time tries it",
            _SLOWER
            if state.ending in _TOO_MANY
            else "see the provider's status page, its key, and the network; calls go on by "
            "themselves",
        )
    if state.paused:
        return Cause(
            "provider",
            f"{state.name} refuses calls{last}: all workers pause, for another "
            f"{state.paused:.1f} s",
            _SLOWER,
        )
    if state.waits_for.is_turn:
        limit = _LIMITS.get(state.waits_for, state.waits_for.value)
        rate = f", {state.rate:.1f} a second" if state.rate else ""
        return Cause(
            "provider",
            f"{state.name}: calls wait for their turn within {limit}{rate}",
            "fewer starts, or a higher limit, if the provider grants it: HEADSTART_LIMITS",
        )
    return None


def budget_causes(facts: Facts) -> Iterator[Cause]:
    """Yield each namespace that has used up its tokens of the day."""
    for namespace, budget in sorted(facts.over_budget.items()):
        yield Cause(
            "budget",
            f"namespace {namespace} has used up its {budget:,} tokens of today: its steps that "
            "call a language model fail until midnight UTC",
            "is it meant? Else raise its llm_tokens_a_day in the file of HEADSTART_LIMITS, "
            "which its next call reads",
        )


CHECKS: Final[tuple[Callable[[Facts], Cause | None], ...]] = (
    store_away,
    store_slow,
    no_worker,
    pool_without_workers,
    unserved,
    workers_full,
    flood,
    no_room,
    certificate,
)
"""Every cause that is known; what explains others comes first."""


def causes(facts: Facts) -> list[Cause]:
    """Return the causes that hold, by the order of `CHECKS`, then those of providers."""
    found = [check(facts) for check in CHECKS]
    found += map(provider_cause, facts.providers)
    return [*(cause for cause in found if cause is not None), *budget_causes(facts)]


_TOO_MANY: Final = ("rate_limited", "overloaded")
"""Ends of calls that come too fast."""
_SLOWER: Final = (
    "set its calls_a_minute in the file of HEADSTART_LIMITS to what the provider grants; calls go "
    "on by themselves"
)
_LIMITS: Final = {WaitsFor.CALLS: "calls_a_minute", WaitsFor.TOKENS: "tokens_a_minute"}
"""What calls wait for, and the limit's name in the file of limits."""
_LACKING: Final[Mapping[Lack | None, str]] = {
    Lack.PIPELINE: "no worker has the pipeline {}",
    Lack.VERSION: "no worker has this version of the pipeline {}",
}


def _without_workers(facts: Facts) -> bool:
    return facts.workers == 0 or Lack.WORKER in facts.lacks.values()


def _runs(facts: Facts, count: int) -> str:
    one = count == 1
    what = "run" if one else "runs"
    if facts.step_runs and facts.step_runs >= facts.queued:
        what = "step of a run" if one else "steps of runs"
    elif facts.step_runs:
        what += " or step of a run" if one else " and steps of runs"
    return f"{count} {what} {'waits' if one else 'wait'}"
