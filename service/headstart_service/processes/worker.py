"""The composition root of `headstart worker`.

Apart from `api`, because its providers bring numpy and onnxruntime, which no API process may load.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from ..api.refusals import Refusals
from ..base.listening import url_host
from ..config.limits_file import LimitsFile
from ..config.rules import rules_of
from ..config.settings import Settings
from ..domain.errors import StartupError
from ..domain.log_fields import fields
from ..http.readiness import Readiness
from ..http.server import http_server
from ..providers.local_permits import SharedPermits
from ..store.connect import BLOCKING, WORKER
from ..store.job_queue import RedisJobQueue
from ..store.layout import StoreLayout
from ..store.memos import RedisMemos
from ..store.message_batches import RedisMessageBatches
from ..store.provider_permits import RedisPermits
from ..store.step_runs import RedisStepRuns
from ..telemetry.logging.formatter import set_up_logging, wants_json
from ..telemetry.logging.work_log import WorkLog
from ..telemetry.tracing import tracing
from ..values.limits import Limits
from ..worker.durations import Durations
from ..worker.executors.executors import ExecutorRules, Executors
from ..worker.own_providers import OwnProviders
from ..worker.ports import ProgressSink
from ..worker.worker import Worker
from ..worker.worker_observer import WorkObserver, WorkObservers
from ..worker.worker_rules import WorkerRules
from .exposure import token_file
from .governors import Governors
from .hang_guard import HangGuard
from .http_refusals import noted
from .lifecycle import (
    layout_watch,
    process_name,
    redis_client,
    served,
    store_rules,
    wait_for_store,
)
from .monitoring import WorkerMonitoring
from .preflight import NO_REDIS
from .providers_in_children import in_children
from .worker_providers import open_providers
from .worker_supervisor import READY_LINE

if TYPE_CHECKING:
    from ..auth.token_file import TokenFile
    from ..pipeline.registry import Registry
    from ..store.connect import Client
    from ..store.layout import LayoutWatch
    from ..store.store_observer import StoreObserver

log = logging.getLogger(__name__)

_CHECK_EVERY = 1.0
"""Seconds between two comparisons of the store's layout."""
_LOGGING = f"{set_up_logging.__module__}:{set_up_logging.__name__}"
_STORE_BUDGET = 10.0
"""Seconds for one answer of the store, its retries included: outlast a short outage."""


async def work(
    settings: Settings,
    *,
    child: bool,
    metrics_socket: int | None = None,
    guard: HangGuard | None = None,
) -> None:
    """Work until cancelled, then drain; as a child of `serve` without an HTTP port.

    As such it sends its metrics on the file descriptor `metrics_socket`, if it is given one. With a
    `guard`, the process ends when its event loop stands still, and soon after its work has. Raises
    StartupError, maybe inside an exception group, when it cannot start.
    """
    url = _url_of(settings)
    known = served(settings)
    layout = _OwnLayout()
    executors = Executors(_executor_rules(settings))
    own = OwnProviders(
        known.own_providers().values(),
        open_limit=settings.open_limit,
        close_limit=settings.close_limit,
    )
    readiness = _Readiness(layout, executors, own)
    monitoring = WorkerMonitoring(known)
    limits = LimitsFile(settings.limits)
    # Only /metrics needs tokens.
    tokens = None if child or not settings.metrics else token_file(settings)
    async with AsyncExitStack() as stack:
        traced = await stack.enter_async_context(tracing("worker", on=settings.tracing))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        tasks.create_task(limits.watch(), name="limits")
        if tokens is not None:
            tasks.create_task(tokens.watch(), name="tokens")
        if settings.metrics:
            _measure(monitoring, metrics_socket, tasks)
        if not child:
            await stack.enter_async_context(_http(settings, readiness, monitoring, tokens))
        client = await stack.enter_async_context(redis_client(url, WORKER))
        blocking = await stack.enter_async_context(redis_client(url, BLOCKING))
        await wait_for_store(client, readiness.waits)
        await layout.agree(client, settings, stack)
        governors = _governors(client, settings, layout.process, limits, monitoring, stack)
        providers = await stack.enter_async_context(
            open_providers(
                settings,
                known.providers(),
                monitoring.models,
                traced,
                governors,
                known.language_models,
                _message_batches(client, settings, monitoring.store, stack),
            )
        )
        await _open(settings, known, own, executors, stack)
        durations = Durations(governors.waits)
        queue = RedisJobQueue(
            client,
            blocking,
            store_rules(settings),
            lease=settings.lease,
            budget=_STORE_BUDGET,
            observer=monitoring.store,
            expected=durations.expected,
            costs=durations.costs,
            weights=lambda: limits.table.weights,
        )
        stack.push_async_callback(queue.aclose)
        rules = rules_of(
            WorkerRules,
            settings,
            name=layout.process.removeprefix("worker "),
            concurrency=settings.worker_concurrency,
            runs=settings.worker_runs,
            host=socket.gethostname(),
            version=importlib.metadata.version("headstart"),
            limits=Limits(settings.max_artifact_bytes, settings.max_run_bytes),
        )
        observers: list[WorkObserver] = [
            monitoring.work,
            durations,
            WorkLog(rules.name, inputs=settings.log_inputs),
        ]
        sink: ProgressSink = queue
        if traced:
            # Outside the log: each log line has the id of the span around it.
            observers.insert(0, traced.work(rules.name))
            sink = traced.sink(queue)
        memos = _memos(client, settings, monitoring.store, stack)
        worker = Worker(
            queue,
            known,
            {**providers, **own.values},
            rules,
            WorkObservers(observers),
            sink,
            memos,
            durations,
            executors,
            _step_runs(client, settings, monitoring.store, stack),
        )
        monitoring.providers.watch_health(lambda: own.health)
        monitoring.work.watch_limits(lambda: limits.refusals)
        monitoring.work.watch_pool(
            slots=rules.concurrency,
            busy=lambda: worker.busy,
            held=lambda: worker.held,
            unavailable=lambda: len(executors.unavailable),
            hung=lambda: executors.hung_threads,
        )
        if guard is not None:
            stack.enter_context(guard.watching(lambda: ", ".join(worker.underway)))
        readiness.worker = worker
        await worker.prepare()  # the next start must find what this worker offers
        gc.collect()
        gc.freeze()  # what is loaded by now stays: no collection needs to visit it again
        layout.ready.set()
        _announce_ready(rules.name, plainly=child or not wants_json(settings.log_format))
        await layout.work(worker, governors)


async def _open(
    settings: Settings,
    known: Registry,
    own: OwnProviders,
    executors: Executors,
    stack: AsyncExitStack,
) -> None:
    """Open the providers of authors, then the executors, whose steps may use them to the end."""
    await stack.enter_async_context(own)
    await stack.enter_async_context(executors)
    in_processes = in_children(settings, known.own_providers("process").values(), own)
    await executors.prepare(known, known.steps_here, in_processes)


def _governors(
    client: Client,
    settings: Settings,
    process: str,
    limits: LimitsFile,
    monitoring: WorkerMonitoring,
    stack: AsyncExitStack,
) -> Governors:
    """Return the governors of this worker; what they use is closed by `stack`."""
    permits = RedisPermits(client, store_rules(settings), process, observer=monitoring.store)
    stack.push_async_callback(permits.aclose)
    shared = SharedPermits(permits)
    return Governors(shared, limits, settings.step_wait, monitoring.providers)


def _measure(
    monitoring: WorkerMonitoring, metrics_socket: int | None, tasks: asyncio.TaskGroup
) -> None:
    tasks.create_task(monitoring.process.watch_loop(), name="loop lag")
    if metrics_socket is not None:
        answering = monitoring.answer_parent(metrics_socket)
        tasks.create_task(answering, name="metrics for the parent")


def _url_of(settings: Settings) -> str:
    if settings.redis_url is None:
        raise StartupError(NO_REDIS)
    return settings.redis_url.get_secret_value()


class _OwnLayout:
    """Keeps a worker from a store that has another layout."""

    def __init__(self) -> None:
        self.process = process_name("worker")
        self.ready = asyncio.Event()
        """Set while the worker takes jobs."""
        self._different = asyncio.Event()
        self._watch: LayoutWatch | None = None

    @property
    def problem(self) -> str:
        """How the store's layout differs; empty when it does not."""
        return self._watch.problem if self._watch else ""

    async def agree(self, client: Client, settings: Settings, stack: AsyncExitStack) -> None:
        """Return once the store's layout is this worker's; compare them until `stack` closes."""
        self._watch = layout_watch(
            StoreLayout(client, settings.partitions, settings.prefix),
            self.process,
            every=_CHECK_EVERY,
            differs=self._different.set,
        )
        await stack.enter_async_context(self._watch.running())
        await self._watch.agreed()

    async def work(self, worker: Worker, governors: Governors) -> None:
        """Work until cancelled. Raises StartupError when the store has got another layout.

        A worker that is started again then waits until the layouts are the same.
        """
        stopping = asyncio.create_task(self._stop(worker, governors), name="layout differs")
        try:
            await _until_cancelled(worker, governors)
        finally:
            stopping.cancel()
        raise StartupError(self.problem or "the store had another layout for a moment")

    async def _stop(self, worker: Worker, governors: Governors) -> None:
        while not self.problem:
            self._different.clear()
            await self._different.wait()
        self.ready.clear()
        governors.drain()
        worker.stop()


@asynccontextmanager
async def _http(
    settings: Settings,
    readiness: _Readiness,
    monitoring: WorkerMonitoring,
    tokens: TokenFile | None,
) -> AsyncIterator[None]:
    """Serve the worker's HTTP port while the context is open."""
    grants = tokens.grants if tokens else None
    async with http_server(
        settings.host,
        settings.http_port,
        lambda: readiness.state,
        [monitoring.route(grants, noted(Refusals(), grants))] if settings.metrics else [],
        # Several workers on one machine must not each need a port of their own in the settings.
        or_any_port="http_port" not in settings.model_fields_set,
    ) as port:
        log.info("HTTP on %s:%d", url_host(settings.host), port)
        yield


def _announce_ready(name: str, *, plainly: bool) -> None:
    log.info("worker %s takes jobs", name, extra=fields(worker=name))
    if plainly:
        print(READY_LINE, flush=True)


class _Readiness:
    """Whether a worker takes jobs."""

    def __init__(self, layout: _OwnLayout, executors: Executors, own: OwnProviders) -> None:
        self._layout = layout
        self._own = own
        self._executors = executors
        self.worker: Worker | None = None
        """Set once it is warm."""
        self._waits = "it starts"

    @property
    def state(self) -> Readiness:
        """What `GET /readyz` answers."""
        problem = self.worker.problem if self.worker else self._waits or "it starts"
        ready = self._layout.ready.is_set()
        return Readiness.without(
            *(self._layout.problem, problem, _lacks(self._executors), self._own.problem),
            ready=ready,
        )

    def waits(self, reason: str) -> None:
        """Note what keeps it from starting."""
        self._waits = reason


def _executor_rules(settings: Settings) -> ExecutorRules:
    return rules_of(
        ExecutorRules,
        settings,
        threads=settings.step_threads,
        processes=settings.step_processes,
        wait=settings.step_wait,
        prelude=(_LOGGING, settings.log_level, settings.log_format),
    )


def _lacks(executors: Executors) -> str:
    """What keeps the worker from being ready. Anybody may read it: the log has the reasons."""
    if not executors.unavailable:
        return ""
    return f"cannot run {', '.join(executors.unavailable)} now, see the log"


def _memos(
    client: Client, settings: Settings, observer: StoreObserver, stack: AsyncExitStack
) -> RedisMemos | None:
    if not settings.max_memos:
        return None
    memos = RedisMemos(client, store_rules(settings), ttl=settings.memo_ttl, observer=observer)
    stack.push_async_callback(memos.aclose)
    return memos


def _message_batches(
    client: Client, settings: Settings, observer: StoreObserver, stack: AsyncExitStack
) -> RedisMessageBatches:
    batches = RedisMessageBatches(client, store_rules(settings), observer=observer)
    stack.push_async_callback(batches.aclose)
    return batches


def _step_runs(
    client: Client, settings: Settings, observer: StoreObserver, stack: AsyncExitStack
) -> RedisStepRuns:
    rules = store_rules(settings)
    step_runs = RedisStepRuns(client, rules, budget=_STORE_BUDGET, observer=observer)
    stack.push_async_callback(step_runs.aclose)
    return step_runs


async def _until_cancelled(worker: Worker, governors: Governors) -> None:
    """Let the worker drain when this is cancelled; raise what broke it."""
    serving = asyncio.create_task(worker.serve(), name="worker")
    try:
        await asyncio.wait({serving})
    finally:
        governors.drain()
        worker.stop()
        await asyncio.wait({serving})
        serving.result()
