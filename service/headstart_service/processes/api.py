"""The composition root of `headstart serve`: builds the API, starts it, drains it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from grpc.aio import Server

from ..api.adoption import Adoption
from ..api.call_limits import CallLimits
from ..api.call_observer import CallObservers
from ..api.dependencies import ApiRules, Dependencies
from ..api.grpc_server import build_server
from ..api.health import Health
from ..api.refusals import Refusals
from ..api.results.estimates import Estimates
from ..api.results.near_cache import NearCache
from ..api.results.outgoing import Outgoing
from ..api.results.reader import ResultReader
from ..api.results.waiting import Waiting
from ..auth.server_certificate import ServerCertificate
from ..base.listening import addresses, listen, reachable, url_host
from ..config.loading import child_environment
from ..config.settings import Settings
from ..domain import RunKey, WorkerState
from ..domain.errors import CapacityExhausted, StartupError, StoreUnavailable
from ..http.readiness import Readiness
from ..pipeline.registry import Registry
from ..store.connect import API, BLOCKING, LARGE, Client
from ..store.events import subscription
from ..store.layout import LayoutWatch
from ..store.redis_store import RedisStore
from ..store.store_rules import StoreRules
from ..telemetry.logging.formatter import wants_json
from ..telemetry.tracing import tracing
from .exposure import certificate, refuse_exposure, token_file
from .first_call import first_call
from .http_api import drain, http_api, http_ports
from .http_refusals import noted
from .lifecycle import (
    layout_watch,
    process_name,
    redis_client,
    redis_url,
    registry,
    store_rules,
    wait_for_store,
)
from .live_page import live_page, own_facts
from .memory import keep_from_collector
from .monitoring import ApiMonitoring
from .worker_supervisor import WorkerProcess

log = logging.getLogger(__name__)

_STORE_BUDGET = 0.25
"""Seconds for one answer of the store: after 300 ms a caller gets an error."""
_CHECK_EVERY = 0.5
_FAILURES_TO_UNREADY = 2

_TRY = """
Headstart serves on {address}. Try:

  {command}
"""


class ApiReadiness:
    """Whether a request could be served: the store answers and, at first, the worker is warm."""

    def __init__(
        self,
        store: RedisStore,
        health: Health,
        worker: WorkerProcess | None,
        *,
        quiet: bool,
        problem: Callable[[], str] = str,
        check_every: float = _CHECK_EVERY,
        prepare_every: int = 60,
    ) -> None:
        """Serve nothing while there is a `problem`.

        Check every `check_every` seconds. Every `prepare_every` checks, make the consumer groups
        that a flush or a failover has lost.
        """
        self._store = store
        self._health = health
        self._worker = worker
        self._quiet = quiet
        self._problem = problem
        self._check_every = check_every
        self._prepare_every = prepare_every
        self.serving = False
        self.reason = "it starts"
        """What is wrong, in one line; empty when all is well."""

    @property
    def state(self) -> Readiness:
        """What `GET /readyz` answers."""
        problem = self._problem()
        return Readiness(self.serving and not problem, problem or self.reason)

    def waits(self, reason: str) -> None:
        """Note what keeps it from starting."""
        self.reason = reason

    async def watch(self, address: str, command: str) -> None:
        """Keep health up to date for ever; print `command` once, as a first call to try."""
        if self._worker is not None:
            self.reason = "its worker starts"
            await self._worker.ready.wait()
        failures = checks = 0
        printed = False
        while True:
            prepares = not self.serving or checks % self._prepare_every == 0
            failures = 0 if await self._answers(prepares=prepares) else failures + 1
            # One slow answer of the store, on a busy machine, is no outage.
            serving = failures == 0 if not self.serving else failures < _FAILURES_TO_UNREADY
            problem = self._problem()
            serving = serving and not problem
            if serving != self.serving:
                self.serving = serving
                await self._health.set_serving(serving=serving)
                log.info("serving" if serving else f"not serving: {problem or self.reason}")
            if serving and not printed:
                printed = True
                # Among JSON lines, a hint for people would be a line that no program can parse.
                if not self._quiet:
                    print(_TRY.format(address=address, command=command), flush=True)
            checks += 1
            await asyncio.sleep(self._check_every)

    async def _answers(self, *, prepares: bool) -> bool:
        """Whether the store answers; notes what is wrong."""
        try:
            if prepares:
                await self._store.prepare()
            await self._store.ping()
        except StoreUnavailable as error:
            self.reason = str(error)
            if self.serving:
                log.warning("readiness: %s", error)
            return False
        except CapacityExhausted as error:
            # Starts are refused, but kept results are served, and running work ends.
            self._report(f"starts are refused: {error}")
        else:
            self._report("")
        return True

    def _report(self, reason: str) -> None:
        """Note what is wrong though it serves; log it when it changes."""
        if self.serving and reason != self.reason:
            log.warning("%s", reason or f"no longer: {self.reason}")
        self.reason = reason


async def serve(settings: Settings) -> None:
    """Serve until cancelled, then drain: each resource is closed after all that use it.

    Raises StartupError, maybe inside an exception group, when it cannot start.
    """
    refuse_exposure(settings)
    tls = await asyncio.to_thread(certificate, settings)
    tokens = token_file(settings)
    known = registry(settings)
    async with AsyncExitStack() as stack:
        traced = await stack.enter_async_context(tracing("api", on=settings.tracing))
        url = await stack.enter_async_context(redis_url(settings))
        client = await stack.enter_async_context(redis_client(url, API))
        events = await stack.enter_async_context(redis_client(url, BLOCKING))
        monitoring = ApiMonitoring()
        rules = store_rules(settings)
        store, estimates = await _stored(stack, settings, url, client, rules, monitoring, known)
        cache = NearCache(settings.near_cache_mb * 1024 * 1024, store.section)

        def outdate(key: RunKey) -> None:
            waiting.outdate(key)

        refusals = stack.enter_context(Refusals())
        page = live_page(
            settings,
            store,
            known,
            tokens,
            outdate,
            lambda: subscription(events, [keys.events for keys in rules.keys(events)]),
            lambda: own_facts(settings, readiness.state, tls),
            refusals,
        )
        calls = CallObservers([monitoring.calls, page.counters]) if page else monitoring.calls
        waiting = Waiting(
            store,
            [partial(subscription, events, channels) for channels in store.sections],
            cache,
            calls,
            section=store.section,
            estimated=estimates.of,
        )
        api = Dependencies(
            store,
            known,
            ResultReader(waiting, cache, known, calls),
            ApiRules(
                result_ttl=settings.result_ttl,
                max_records=settings.max_cached_results,
                partitions=settings.partitions,
                separate=tokens is not None,
                max_connection_age=settings.max_connection_age,
                log_inputs=settings.log_inputs,
            ),
            calls,
            traced.start(store.start) if traced else None,
            tokens.grants if tokens else None,
            refusals,
        )
        health = Health()  # it starts as not serving
        worker = _worker(settings, url, monitoring) if settings.worker else None
        layout = await stack.enter_async_context(_layout(store, waiting))
        readiness = ApiReadiness(
            store,
            health,
            worker,
            quiet=wants_json(settings.log_format),
            problem=lambda: layout.problem,
        )

        listening = await stack.enter_async_context(asyncio.TaskGroup())
        grants = tokens.grants if tokens else None
        limits = _limits(settings)
        monitoring.watch_calls(limits, cache, lambda: readiness.serving)
        monitoring.watch_store(
            lambda: store.unreachable, lambda: store.stats(""), settings.max_cached_results
        )
        monitoring.watch_others(tokens, tls, worker)
        listening.create_task(monitoring.process.watch_loop(), name="loop lag")
        outgoing = Outgoing()
        wrap = traced.calls() if traced else None
        over_http = http_api(settings, api, limits, grants, outgoing, wrap.begin if wrap else None)
        http_port = await stack.enter_async_context(
            http_ports(
                settings,
                lambda: readiness.state,
                [
                    *(
                        [monitoring.route(grants, noted(refusals, grants))]
                        if settings.metrics
                        else []
                    ),
                    *(page.routes() if page else []),
                ],
                over_http,
                limits,
                tls,
            )
        )
        server = build_server(
            api,
            health,
            limits,
            grants,
            outgoing=outgoing,
            reflects=settings.reflection,
            wrap=wrap,
        )
        grpc_port = _bind(server, settings, tls)
        stack.push_async_callback(drain, server, over_http, settings.drain)
        stack.callback(waiting.release)
        working = await stack.enter_async_context(asyncio.TaskGroup())
        stack.push_async_callback(health.shut_down)

        await server.start()
        _log_access(settings, grpc_port, http_port)
        _start(
            listening,
            waiting=waiting.run(),
            tokens=tokens.watch() if tokens else None,
            certificate=tls.watch() if tls else None,
        )
        _start(
            working,
            live_page=page.run() if page else None,
            adoption=Adoption(store, known).run(),
            worker_process=worker.run() if worker else None,
        )
        keep_from_collector()
        await wait_for_store(client, readiness.waits)
        address = f"{url_host(reachable(settings.host))}:{grpc_port}"
        await readiness.watch(address, first_call(settings, known, address))


async def _stored(
    stack: AsyncExitStack,
    settings: Settings,
    url: str,
    client: Client,
    rules: StoreRules,
    monitoring: ApiMonitoring,
    known: Registry,
) -> tuple[RedisStore, Estimates]:
    """Open the store, and the estimates that it uses and that are read from it."""

    async def workers(limit: int) -> Sequence[WorkerState]:
        return await store.workers(limit)

    estimates = Estimates(workers, known, settings.partitions)
    store = RedisStore(
        client,
        rules,
        budget=_STORE_BUDGET,
        connections=API.connections,
        observer=monitoring.store,
        large=await stack.enter_async_context(redis_client(url, LARGE)),
        expected=estimates.expected,
    )
    stack.push_async_callback(store.aclose)
    estimates.refresh()
    stack.push_async_callback(estimates.aclose)
    return store, estimates


@asynccontextmanager
async def _layout(store: RedisStore, waiting: Waiting) -> AsyncIterator[LayoutWatch]:
    """Keep this process from a store of another layout, and from its own old answers."""
    watch = layout_watch(
        store.layout,
        process_name("api"),
        every=_CHECK_EVERY,
        differs=waiting.keep_nothing,
        agrees=waiting.keep_again,
    )
    async with watch.running():
        yield watch


def _worker(settings: Settings, url: str, monitoring: ApiMonitoring) -> WorkerProcess:
    return WorkerProcess(
        child_environment(settings, redis_url=url),
        settings.drain + settings.close_limit,
        monitoring.child if settings.metrics else None,
    )


def _log_access(settings: Settings, grpc_port: int, http_port: int) -> None:
    host = url_host(settings.host)
    log.info("gRPC on %s:%d, HTTP on %s:%d", host, grpc_port, host, http_port)
    log.info(
        "TLS %s, client certificates %s, tokens %s",
        "on" if settings.tls_cert else "off",
        "required" if settings.tls_client_ca else "not asked for",
        "required" if settings.tokens else "not asked for",
    )
    if settings.dashboard:
        scheme = "https" if settings.http_tls else "http"
        where = f"{scheme}://{url_host(reachable(settings.host))}:{http_port}/"
        log.info("live page on %s", where)


def _start(group: asyncio.TaskGroup, **tasks: Coroutine[Any, Any, None] | None) -> None:
    """Start those tasks that there are, by name."""
    for name, task in tasks.items():
        if task is not None:
            group.create_task(task, name=name)


def _limits(settings: Settings) -> CallLimits:
    return CallLimits(
        waiters=settings.max_waiters, watches=settings.max_watches, calls=settings.max_calls
    )


def _bind(server: Server, settings: Settings, tls: ServerCertificate | None) -> int:
    """Bind the addresses that the HTTP port has, too; gRPC opens its sockets by itself."""
    try:
        free = listen(settings.host, settings.grpc_port)
        places = list(addresses(free))
        for each in free:
            each.close()
        for place in places:
            if tls is None:
                port = server.add_insecure_port(place)
            else:
                port = server.add_secure_port(place, tls.credentials())
    except (OSError, RuntimeError) as error:
        raise StartupError(
            f"HEADSTART_GRPC_PORT: cannot listen on {settings.host} port {settings.grpc_port}: "
            "is another server there? Stop that, or give another port (0: any free one)"
        ) from error
    except (ValueError, TypeError) as error:
        raise StartupError(f"HEADSTART_HOST: {settings.host!r:.100} is no host: {error}") from error
    return port
