"""Read what a server's runs wait for, and name the causes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from headstart import HeadstartError
from headstart.v1 import precompute_pb2 as pb

from ...domain import DEFAULT_POOL, Lack, PoolStats
from ...domain.causes import Facts, causes
from .providers import provider_checks
from .report import Check, ok, warn

_PAGE: Final = 1000
_PAGES: Final = 20
"""Pages of pending runs that are read at most."""
_NAMESPACES: Final = 5
"""Namespaces whose pending runs are counted: those with the most on these pages."""
_FEW: Final = 100
"""Runs of a page that are looked for again a moment later."""
_MOMENT: Final = 1.0
"""Seconds between two looks at the queue: a run that is in both waits for a slot."""
_LACKS: Final = {
    pb.PENDING_REASON_NO_WORKER: Lack.WORKER,
    pb.PENDING_REASON_NO_WORKER_FOR_POOL: Lack.POOL,
    pb.PENDING_REASON_NO_WORKER_FOR_PIPELINE: Lack.PIPELINE,
    pb.PENDING_REASON_NO_WORKER_FOR_VERSION: Lack.VERSION,
}
Ask = Callable[[str, Any], "HeadstartError | Any"]
"""Calls a method and returns the response, or the error."""


def check_load(
    ask: Ask, namespace: str, pause: Callable[[float], None] = time.sleep
) -> list[Check]:
    """Return the causes why runs wait, or that none does; nothing without the right to GetStats."""
    stats = ask("GetStats", pb.GetStatsRequest(namespace=namespace))
    if isinstance(stats, HeadstartError):
        return []
    found = causes(_facts(ask, namespace, stats, pause))
    checks = [warn(cause.name, cause.found, cause.advice) for cause in found]
    checks += provider_checks(stats)
    # Workers that cannot compute some runs may take all others.
    if set(stats.pools) - {DEFAULT_POOL}:
        checks.append(_pools(stats.pools))
    if all(cause.name in {"unserved", "pool"} for cause in found):
        steps = ""
        if stats.pending_step_runs or stats.running_step_runs:
            steps = (
                f" and steps of other pools: {stats.pending_step_runs} queued, "
                f"{stats.running_step_runs} running;"
            )
        queued = max(stats.queued_jobs - stats.pending_step_runs, 0)
        load = f"{queued} queued, {stats.active_tasks} running{steps or ','}"
        checks.append(ok("work", f"{load} {stats.total_cached} of {stats.max_cached} kept"))
    return checks


def _pools(pools: Any) -> Check:
    """Show what each pool has to do, and how many workers for it."""
    shown = (
        f"{name}: {pool.queued} queued{_longest(pool)}, {pool.running} running, {pool.workers} "
        f"worker{'' if pool.workers == 1 else 's'}"
        for name, pool in sorted(pools.items())
    )
    return ok("pools", "; ".join(shown))


def _longest(pool: Any) -> str:
    if not pool.queued:
        return ""
    return f" for up to {pool.oldest_wait.ToMicroseconds() / 1e6:.1f} s"


def _facts(ask: Ask, namespace: str, stats: Any, pause: Callable[[float], None]) -> Facts:
    lacks: dict[str, Lack] = {}
    names: Counter[str] = Counter()
    first: set[tuple[str, str, int]] = set()
    if stats.queued_jobs:
        for run in _pending(ask, namespace, _PAGES):
            names[run.namespace] += 1
            if run.pending_reason in _LACKS:
                lacks[run.pipeline] = _LACKS[run.pending_reason]
            elif len(first) < _FEW:
                first.add((run.namespace, run.key, run.revision))
    waits = False
    if first:
        pause(_MOMENT)
        again = {(run.namespace, run.key, run.revision) for run in _pending(ask, namespace, 1)}
        waits = bool(first & again)
    counted = {}
    for name, _ in names.most_common(_NAMESPACES if not namespace else 0):
        reply = ask("GetStats", pb.GetStatsRequest(namespace=name))
        if not isinstance(reply, HeadstartError):
            counted[name] = reply
    return Facts(
        queued=stats.queued_jobs,
        running=stats.active_tasks,
        step_runs=stats.pending_step_runs,
        running_step_runs=stats.running_step_runs,
        unserved=dict(stats.unserved),
        pools={
            name: PoolStats(
                *(pool.queued, pool.running, pool.workers),
                pool.oldest_wait.ToMicroseconds() / 1e6,
            )
            for name, pool in stats.pools.items()
        },
        lacks=lacks,
        waits=waits,
        pending={name: each.status_counts["pending"] for name, each in counted.items()},
        all_pending=stats.status_counts["pending"],
        kept=stats.total_cached,
        kept_in={name: each.total_cached for name, each in counted.items()},
        room=stats.max_cached,
    )


def _pending(ask: Ask, namespace: str, pages: int) -> Iterator[Any]:
    """Yield pending runs, of so many pages; none without the right to list them."""
    request = pb.ListPrecomputesRequest(
        namespace=namespace, page_size=_PAGE, statuses=[pb.PRECOMPUTE_STATUS_PENDING]
    )
    for _ in range(pages):
        reply = ask("ListPrecomputes", request)
        if isinstance(reply, HeadstartError):
            return
        yield from reply.precomputes
        if not reply.next_page_token:
            return
        request.page_token = reply.next_page_token
