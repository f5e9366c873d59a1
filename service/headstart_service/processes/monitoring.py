"""Compose the metrics of each kind of process, and the route on which Prometheus reads them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

from starlette.routing import Route

from ..api.call_limits import CallLimits
from ..api.results.near_cache import NearCache
from ..auth.grants import Grants
from ..auth.server_certificate import ServerCertificate
from ..auth.token_file import TokenFile
from ..domain import Stats
from ..http.metrics import Noted, metrics_route
from ..pipeline.registry import Registry
from ..telemetry.metrics.backlog import BacklogMetrics
from ..telemetry.metrics.calls import CallMetrics
from ..telemetry.metrics.child_pipe import ChildMetrics, answer_parent
from ..telemetry.metrics.exposition import Exposition
from ..telemetry.metrics.instruments import Description, Instruments
from ..telemetry.metrics.process import API, WORKER, ProcessMetrics
from ..telemetry.metrics.providers import ProviderMetrics
from ..telemetry.metrics.store import StoreMetrics, WorkerStoreMetrics
from ..telemetry.metrics.work import ModelMetrics, WorkerMetrics
from .worker_supervisor import WorkerProcess

_Collector = CallMetrics | Instruments | BacklogMetrics | ProcessMetrics


def _described(collectors: Iterable[_Collector]) -> Iterator[Description]:
    for collector in collectors:
        yield from collector.described()


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
            "Calls under way: `GetResults` (without those that the near-cache answers), "
            "`WatchResults` and `other`.",
            lambda: {(kind.value,): limit.inside for kind, limit in limits.by_kind.items()},
            ("kind",),
        )
        reading(
            "calls_limit",
            "Most calls of a kind that this process holds at once.",
            lambda: {(kind.value,): limit.limit for kind, limit in limits.by_kind.items()},
            ("kind",),
        )
        reading(
            "near_cache_lookups_total",
            "Lookups in the near-cache: `hit` or `miss`. Their shares size "
            "`HEADSTART_NEAR_CACHE_MB`.",
            lambda: {("hit",): cache.hits, ("miss",): cache.misses},
            ("result",),
        )
        reading("near_cache_bytes", "Memory of the near-cache's results.", lambda: cache.size)
        reading("near_cache_entries", "Results in the near-cache.", lambda: len(cache))
        reading("ready", "1 while this process is ready.", lambda: int(serving()))

    def watch_store(
        self, unreachable: Callable[[], int], stats: Callable[[], Awaitable[Stats]], limit: int
    ) -> None:
        """Show what the store holds, at most `limit` runs, and how many partitions are away."""
        self.store.watch_breaker(unreachable)
        self._backlog = BacklogMetrics(stats, limit)

    def watch_others(
        self, tokens: TokenFile | None, tls: ServerCertificate | None, worker: WorkerProcess | None
    ) -> None:
        """Show what becomes of the files that are read again, and of the child."""
        self._readings.reading(
            "reload_failures_total",
            "Unusable new files of `tokens` or a `certificate`; the old one stays in force.",
            lambda: {
                ("tokens",): tokens.refusals if tokens else 0,
                ("certificate",): tls.refusals if tls else 0,
            },
            ("file",),
        )
        self._readings.reading(
            "certificate_expiry_timestamp_seconds",
            "End of the served certificate, as Unix time; nothing without TLS.",
            lambda: tls.expires if tls else None,
        )
        self._readings.reading(
            "worker_restarts_total",
            "Times that the worker of `serve` ended by itself; nothing without one.",
            lambda: worker.restarts if worker else None,
        )
        self._readings.reading(
            "worker_hangs_total",
            "Times that the worker of `serve` ended because its event loop blocked (exit code 14); "
            "nothing without one.",
            lambda: worker.hangs if worker else None,
        )

    def route(self, grants: Grants | None, refused: Noted | None = None) -> Route:
        """`GET /metrics`; with tokens, for those that may see every namespace."""
        exposition = Exposition(
            self._collectors(),
            refresh=self._backlog.refresh if self._backlog else None,
            child=self.child.text,
        )
        check = grants.check_metrics if grants else None
        return metrics_route(exposition.text, check, refused)

    def _collectors(self) -> list[_Collector]:
        backlog = [self._backlog] if self._backlog else []
        return [self.calls, self._readings, *backlog, self.store, self.process]

    def described(self) -> Iterator[Description]:
        """Describe all metrics of the process itself."""
        return _described(self._collectors())


class WorkerMonitoring:
    """The metrics of `headstart worker`."""

    def __init__(self, registry: Registry) -> None:
        self.process = ProcessMetrics(WORKER)
        self.store = WorkerStoreMetrics(WORKER)
        self.work = WorkerMetrics(registry)
        self.models = ModelMetrics()
        self.providers = ProviderMetrics()
        self._collectors: list[_Collector] = [
            *(self.work, self.models, self.providers, self.store, self.process)
        ]
        self._exposition = Exposition(self._collectors)

    def route(self, grants: Grants | None, refused: Noted | None = None) -> Route:
        """As `ApiMonitoring.route`."""
        check = grants.check_metrics if grants else None
        return metrics_route(self._exposition.text, check, refused)

    def described(self) -> Iterator[Description]:
        """Describe all metrics of the process."""
        return _described(self._collectors)

    async def answer_parent(self, descriptor: int) -> None:
        """Send the metrics to the `serve` at the other end of this file descriptor."""
        await answer_parent(descriptor, self._exposition.text)
