"""The composition root of `headstart serve`: builds the API, starts it, drains it."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from grpc.aio import Server

from .api.access import EVERYTHING, Grant
from .api.gate import CallLimits
from .api.hub import Hub
from .api.near_cache import NearCache
from .api.observe import CallObservers
from .api.reader import ResultReader
from .api.server import Health, build_server
from .api.servicer import ApiRules, PrecomputeServicer
from .api.tls import ServerCertificate
from .api.token_file import TokenFile
from .domain import RunKey
from .engine.pace import Pace
from .engine.registry import Registry
from .errors import StartupError, StoreUnavailable
from .process import redis_client, registry, store_rules, wait_for_store
from .security import certificate, is_loopback, refuse_exposure, token_file
from .settings import Settings, child_environment
from .store.connect import API, BLOCKING
from .store.embedded import embedded_valkey
from .store.events import subscription
from .store.keys import PartitionKeys
from .store.redis_store import RedisStore
from .supervisor import WorkerProcess
from .web.dashboard import Dashboard, Rules
from .web.guard import Door
from .web.server import http_server

log = logging.getLogger(__name__)

_STORE_BUDGET = 0.25
"""Seconds for one answer of the store: a caller is told within 300 ms that there is none."""
_CHECK_EVERY = 0.5
_FAILURES_TO_UNREADY = 2

_TRY = """
Headstart serves on {address}. Try:

  {grpcurl} {how} -d '{{"key": "game-1", "bridging": {{"anchor": "ocean", "target": "forest", \
"recipient_type": "RECIPIENT_TYPE_HUMAN"}}}}' \
{address} headstart.v1.PrecomputeService/StartPrecompute
"""


class _Readiness:
    """Whether a request could be served: the store answers and, at first, the worker is warm."""

    def __init__(self, store: RedisStore, health: Health, worker: WorkerProcess | None) -> None:
        self._store = store
        self._health = health
        self._worker = worker
        self.serving = False

    async def watch(self, address: str, how: str) -> None:
        """Keep health up to date for ever; says once how to try the service."""
        if self._worker is not None:
            await self._worker.ready.wait()
        failures = 0
        said = False
        while True:
            try:
                await self._store.ping()
            except StoreUnavailable as error:
                failures += 1
                if self.serving:
                    log.warning("readiness: %s", error)
            else:
                failures = 0
            # One slow answer on a busy machine is no outage.
            serving = failures == 0 if not self.serving else failures < _FAILURES_TO_UNREADY
            if serving != self.serving:
                self.serving = serving
                await self._health.set_serving(serving=serving)
                log.info("serving" if serving else "not serving: the store is away")
            if serving and not said:
                said = True
                print(_TRY.format(address=address, grpcurl=_grpcurl(), how=how), flush=True)
            await asyncio.sleep(_CHECK_EVERY)


def _grpcurl() -> str:
    """The command as it can be typed here: `make setup` puts one beside this Python."""
    beside = Path(sys.executable).with_name("grpcurl")
    if not beside.exists():
        return "grpcurl"
    here = Path.cwd()
    return str(beside.relative_to(here) if beside.is_relative_to(here) else beside)


def _how_to_call(settings: Settings) -> str:
    """The options that grpcurl needs."""
    how = "-cacert YOUR_CA.pem" if settings.tls_cert else "-plaintext"
    if settings.tls_client_ca:
        how += " -cert YOURS.pem -key YOURS.key"
    return f"{how} -H 'authorization: Bearer YOUR_TOKEN'" if settings.tokens else how


async def serve(settings: Settings) -> None:
    """Serve until cancelled, then drain: each resource is closed after all that use it.

    Raises StartupError, maybe inside an exception group, when it cannot start.
    """
    refuse_exposure(settings)
    tls = certificate(settings)
    tokens = token_file(settings)
    known = registry(settings)
    async with AsyncExitStack() as stack:
        if settings.redis_url:
            url = settings.redis_url.get_secret_value()
        else:
            url = await stack.enter_async_context(embedded_valkey(settings.data_dir))
        client = await stack.enter_async_context(redis_client(url, API))
        events = await stack.enter_async_context(redis_client(url, BLOCKING))
        pace = Pace()
        store = RedisStore(
            client,
            store_rules(settings),
            budget=_STORE_BUDGET,
            connections=API.connections,
            pace=pace,
        )
        stack.push_async_callback(store.aclose)
        cache = NearCache(settings.near_cache_mb * 1024 * 1024)
        channels = [PartitionKeys(p).events for p in range(settings.partitions)]
        dashboard = None

        def outdate(key: RunKey) -> None:
            hub.outdate(key)  # which hears for the dashboard, so it comes after it

        if settings.dashboard:
            dashboard = _dashboard(settings, store, known, tokens, outdate)
        observer = dashboard.counters if dashboard else CallObservers()
        hub = Hub(
            store,
            lambda: subscription(events, channels),
            cache,
            pace,
            observer,
            dashboard.hear if dashboard else None,
        )
        servicer = PrecomputeServicer(
            store,
            known,
            ResultReader(hub, cache, known, observer),
            ApiRules(
                result_ttl=settings.result_ttl,
                max_records=settings.max_cached_results,
                separate=tokens is not None,
            ),
            observer,
        )
        health = Health()
        await health.set_serving(serving=False)
        worker = None
        if settings.worker:
            worker = WorkerProcess(child_environment(settings, redis_url=url), settings.drain)
        readiness = _Readiness(store, health, worker)

        listening = await stack.enter_async_context(asyncio.TaskGroup())
        http_port = await stack.enter_async_context(
            http_server(
                settings.host,
                settings.http_port,
                lambda: readiness.serving,
                dashboard.routes() if dashboard else (),
            )
        )
        access = None if tokens is None else tokens.access
        limits = CallLimits(
            waiters=settings.max_waiters, watches=settings.max_watches, calls=settings.max_calls
        )
        server = build_server(servicer, health, limits, access, reflects=settings.reflection)
        grpc_port = _bind(server, settings, tls)
        stack.push_async_callback(server.stop, settings.drain)
        stack.callback(hub.release)
        working = await stack.enter_async_context(asyncio.TaskGroup())
        stack.push_async_callback(health.shut_down)

        await server.start()
        host = settings.url_host
        _say_how(settings, host, grpc_port, http_port)
        listening.create_task(hub.run(), name="hub")
        if dashboard is not None:
            working.create_task(dashboard.run(), name="live page")
        if tokens is not None:
            listening.create_task(tokens.watch(), name="tokens")
        if worker is not None:
            working.create_task(worker.run(), name="worker process")
        await wait_for_store(client)
        await readiness.watch(f"{host}:{grpc_port}", _how_to_call(settings))


def _say_how(settings: Settings, host: str, grpc_port: int, http_port: int) -> None:
    """Log where this process listens and whom it asks for what."""
    log.info("gRPC on %s:%d, HTTP on %s:%d", host, grpc_port, host, http_port)
    log.info(
        "TLS %s, client certificates %s, tokens %s",
        "on" if settings.tls_cert else "off",
        "required" if settings.tls_client_ca else "not asked for",
        "required" if settings.tokens else "not asked for",
    )
    if settings.dashboard:
        log.info("live page on http://%s:%d/", host, http_port)


def _dashboard(
    settings: Settings,
    store: RedisStore,
    known: Registry,
    tokens: TokenFile | None,
    outdate: Callable[[RunKey], None],
) -> Dashboard:
    """The live page, with the API's own rules of who may see and do what."""

    def admit(authorization: str | None) -> Grant:
        return EVERYTHING if tokens is None else tokens.access.admit(authorization)

    door = Door(
        host=settings.host,
        tokens=tokens is not None,
        open=settings.insecure or is_loopback(settings.host),
    )
    about = {
        "host": socket.gethostname(),
        "version": importlib.metadata.version("headstart"),
        "started_us": time.time_ns() // 1000,
        "max_cached": settings.max_cached_results,
    }
    return Dashboard(store, known, admit, Rules(door=door, about=about), outdate)


def _bind(server: Server, settings: Settings, tls: ServerCertificate | None) -> int:
    address = f"{settings.url_host}:{settings.grpc_port}"
    try:
        if tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, tls.credentials())
    except RuntimeError as error:
        raise StartupError(
            f"HEADSTART_GRPC_PORT: cannot listen on {settings.host} port {settings.grpc_port}: "
            "is another server there?"
        ) from error
