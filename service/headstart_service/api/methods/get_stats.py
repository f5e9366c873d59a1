"""GetStats: counts the runs that are kept, running and queued."""

from __future__ import annotations

from typing import Final

from headstart.v1 import precompute_pb2 as pb

from ...domain import PoolStats, ProviderState, Stats, Status, WaitsFor
from ..accounting_message import ledger_message
from ..dependencies import Call, Dependencies
from ..request_rules import listed_namespace_violations, refuse

_LIMITS: Final = {
    WaitsFor.CALLS: pb.PROVIDER_LIMIT_CALLS,
    WaitsFor.TOKENS: pb.PROVIDER_LIMIT_TOKENS,
    WaitsFor.CONCURRENCY: pb.PROVIDER_LIMIT_CONCURRENCY,
}


class GetStats:
    """Counts runs of the store."""

    def __init__(self, api: Dependencies) -> None:
        self._store, self._rules, self._registry = api.store, api.rules, api.registry

    def parse(self, request: pb.GetStatsRequest) -> str:
        """Return the namespace to count; empty means all. Raises InvalidRequest."""
        refuse(listed_namespace_violations(request.namespace))
        return request.namespace

    def _pools(self, namespace: str, stats: Stats) -> dict[str, pb.Pool]:
        """Return the pools, which all namespaces share; none to who may see one namespace."""
        if self._rules.separate and namespace:
            return {}
        used = {name: _pool(pool) for name, pool in stats.pools.items()}
        return {name: pb.Pool() for name in self._registry.pools} | used

    async def handle(self, request: pb.GetStatsRequest, _: Call) -> pb.GetStatsResponse:
        """Return the counts and the accounting of the namespace."""
        namespace = self.parse(request)
        stats = await self._store.stats(namespace)
        queued = stats.queued_jobs
        if self._rules.separate and namespace:
            queued = stats.counts.get(Status.PENDING, 0) + stats.pending_step_runs
        over = stats.over_budget
        if self._rules.separate and namespace:
            over = {name: budget for name, budget in over.items() if name == namespace}
        return pb.GetStatsResponse(
            total_cached=sum(stats.counts.values()),
            active_tasks=stats.counts.get(Status.IN_PROGRESS, 0),
            status_counts={status.value: count for status, count in stats.counts.items()},
            queued_jobs=queued,
            max_cached=self._rules.max_records,
            ledger=ledger_message(stats.ledger) if stats.ledger else None,
            unserved=stats.unserved,
            providers=[_provider(state) for state in stats.providers],
            over_budget=over,
            pools=self._pools(namespace, stats),
            pending_step_runs=stats.pending_step_runs,
            running_step_runs=stats.running_step_runs,
        )


def _pool(pool: PoolStats) -> pb.Pool:
    message = pb.Pool(queued=pool.queued, running=pool.running, workers=pool.workers)
    if pool.oldest_wait:
        message.oldest_wait.FromMicroseconds(round(pool.oldest_wait * 1e6))
    return message


def _provider(state: ProviderState) -> pb.ProviderStatus:
    message = pb.ProviderStatus(
        name=state.name,
        failing=state.opened > 0,
        last_error=state.ending,
        waits_for=_LIMITS.get(state.waits_for, pb.PROVIDER_LIMIT_UNSPECIFIED),
        calls_a_second=state.rate,
    )
    if state.paused:
        message.paused.FromMicroseconds(round(state.paused * 1e6))
    return message
