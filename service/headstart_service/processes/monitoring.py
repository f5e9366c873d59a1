"""Compose the metrics of each kind of process, and the route on which Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable

from starlette.routing import Route

from ..api.call_limits import CallLimits
from ..api.results.near_cache import NearCache
from ..auth.grants import Grants
from ..auth.server_certificate import ServerCertificate
from ..auth.token_file import TokenFile
from ..http.metrics import metrics_route
from ..pipeline.registry import Registry
from ..store.redis_store import RedisStore
from ..telemetry.metrics.backlog import BacklogMetrics
from ..telemetry.metrics.calls import CallMetrics
from ..telemetry.metrics.child_pipe import ChildMetrics, answer_parent
from ..telemetry.metrics.exposition import Exposition
from ..telemetry.metrics.instruments import Instruments
from ..telemetry.metrics.process import API, WORKER, ProcessMetrics
from ..telemetry.metrics.store import StoreMetrics, WorkerStoreMetrics
from ..telemetry.metrics.work import ModelMetrics, WorkerMetrics
from .worker_supervisor import WorkerProcess


class ApiMonitoring:
    """The metrics of `headstart serve`, with those of its worker."""

    def __init__(self) -> None:
        self.process = ProcessMetrics(API)
        self.store = StoreMetrics(API)
        self.calls = CallMetrics(self.store.damaged)
        self.child = ChildMetrics()
        self._readings = Instruments()
        self._backlog: BacklogMetrics | None = None

    def watch_calls(
        self, limits: CallLimits, cache: NearCache, serving: Callable[[], bool]
    ) -> None:
        """Show how many calls are under way, and what the near-cache does for them."""
        reading = self._readings.reading
        reading(
            "calls_in_progress",
            "Calls that are under way; of GetResults those that memory alone could not answer.",
            lambda: {(kind.value,): limit.inside for kind, limit in limits.by_kind.items()},
            ("kind",),
        )
        reading(
            "calls_limit",
            "How many of these this process holds at once.",
            lambda: {(kind.value,): limit.limit for kind, limit in limits.by_kind.items()},
            ("kind",),
        )
        reading(
            "near_cache_lookups_total",
            "Looks for a result in this process's memory.",
            lambda: {("hit",): cache.hits, ("miss",): cache.misses},
            ("result",),
        )
        reading("near_cache_bytes", "Memory of the results kept there.", lambda: cache.size)
        reading("near_cache_entries", "Results kept there.", lambda: len(cache))
        reading("ready", "1 while this process says that it can serve.", lambda: int(serving()))

    def watch_store(self, store: RedisStore, limit: int) -> None:
        """Show what it holds, at most `limit` runs, and whether it is known to be away."""
        self.store.watch_breaker(lambda: store.unreachable)
        self._backlog = BacklogMetrics(lambda: store.stats(""), limit)

    def watch_others(
        self, tokens: TokenFile | None, tls: ServerCertificate | None, worker: WorkerProcess | None
    ) -> None:
        """Show what becomes of the files that are read again, and of the child."""
        self._readings.reading(
            "reload_failures_total",
            "Times that a changed file could not be read, so that the old one stays in force.",
            lambda: {
                ("tokens",): tokens.refusals if tokens else 0,
                ("certificate",): tls.refusals if tls else 0,
            },
            ("file",),
        )
        self._readings.reading(
            "certificate_expiry_timestamp_seconds",
            "When the certificate that is served ends, as Unix time; nothing without TLS.",
            lambda: tls.expires if tls else None,
        )
        self._readings.reading(
            "worker_restarts_total",
            "Times that the worker of `serve` ended by itself; nothing without one.",
            lambda: worker.restarts if worker else None,
        )
        self._readings.reading(
            "worker_hangs_total",
            "Times that it was because its event loop stood still; nothing without one.",
            lambda: worker.hangs if worker else None,
        )

    def route(self, grants: Grants | None) -> Route:
        """`GET /metrics`; with tokens, for those that may see every namespace."""
        backlog = [self._backlog] if self._backlog else []
        exposition = Exposition(
            [self.calls, self._readings, *backlog, self.store, self.process],
            refresh=self._backlog.refresh if self._backlog else None,
            child=self.child.text,
        )
        return metrics_route(exposition.text, grants.check_metrics if grants else None)


class WorkerMonitoring:
    """The metrics of `headstart worker`."""

    def __init__(self, registry: Registry) -> None:
        self.process = ProcessMetrics(WORKER)
        self.store = WorkerStoreMetrics(WORKER)
        self.work = WorkerMetrics(registry)
        self.models = ModelMetrics()
        self._exposition = Exposition([self.work, self.models, self.store, self.process])

    def route(self, grants: Grants | None) -> Route:
        """As `ApiMonitoring.route`."""
        return metrics_route(self._exposition.text, grants.check_metrics if grants else None)

    async def answer_parent(self, descriptor: int) -> None:
        """Send the metrics to the `serve` at the other end of this file descriptor."""
        await answer_parent(descriptor, self._exposition.text)
