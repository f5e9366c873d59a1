"""What both kinds of process do alike: stop on a signal, open the store's clients."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from ..config.settings import Settings
from ..domain.errors import StartupError, StoreUnavailable
from ..pipeline.declared_providers import declared_providers
from ..pipeline.registry import Registry, load_installed, load_pipelines
from ..pipelines.bridging import BRIDGING
from ..store.connect import (
    Client,
    Patience,
    check_version,
    eviction_policy,
    open_client,
)
from ..store.embedded import embedded_valkey
from ..store.layout import (
    Layout,
    LayoutWatch,
    StoreLayout,
    difference,
    stored_layout,
)
from ..store.repartition import adopt_empty
from ..store.store_rules import StoreRules

log = logging.getLogger(__name__)

_STORE_RETRY = 0.5
_PR_SET_PDEATHSIG = 1


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on an event loop of its own, until it ends; raises what it raises.

    A SystemExit or KeyboardInterrupt of another task, or of a callback, stops a loop. It is a
    step's own: signals are handled by `run_until_stopped`. So the loop goes on.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        loop = runner.get_loop()
        task = loop.create_task(run_until_stopped(main), name="process")
        while not task.done():
            try:
                loop.run_until_complete(task)
            except BaseException:
                if task.done():
                    raise
                log.exception("a step's task or callback raised what is no Exception")
        task.result()


async def run_until_stopped(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` until SIGTERM, SIGINT or SIGHUP, then cancel it: its contexts drain as they close.

    Under `nohup`, SIGHUP stays ignored. A second signal ends the process as it usually does.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(main, name="main")
    signals = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)

    def stop(number: signal.Signals) -> None:
        log.info("%s: stopping", number.name)
        forget_signals()
        task.cancel()

    def forget_signals() -> None:
        for each in signals:
            loop.remove_signal_handler(each)
            # Python's own handler raises KeyboardInterrupt at any place, even in a step.
            signal.signal(each, signal.SIG_DFL)

    for each in signals:
        loop.add_signal_handler(each, stop, each)
    try:
        await asyncio.wait({task})
    finally:
        forget_signals()
    if not task.cancelled():
        task.result()


def exit_with_parent() -> None:
    """End this process at once when its standard input closes: its parent is gone.

    On Linux the kernel ends it, also when code in C lets no thread run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


@asynccontextmanager
async def redis_client(url: str, patience: Patience) -> AsyncIterator[Client]:
    """A client that is closed with the context."""
    client = open_client(url, patience)
    try:
        yield client
    finally:
        await client.aclose()


async def wait_for_store(client: Client, waits: Callable[[str], None]) -> None:
    """Return when Redis answers; pass each new reason why it does not to `waits`.

    Raises StartupError when it is too old.
    """
    reason = ""
    while True:
        try:
            log.info("store: %s", await check_version(client))
        except StoreUnavailable as error:
            if str(error) != reason:
                reason = str(error)
                log.warning("waiting for Redis: %s", reason)
                waits(reason)
            await asyncio.sleep(_STORE_RETRY)
        else:
            waits("")
            await _warn_of_eviction(client)
            return


async def _warn_of_eviction(client: Client) -> None:
    policy = await eviction_policy(client)
    if policy not in ("", "noeviction"):
        log.warning(
            "Redis' maxmemory-policy is %s: it may drop records and the queue. CONFIG SET "
            "maxmemory-policy noeviction: HEADSTART_MAX_CACHED_RESULTS bounds what is kept",
            policy,
        )


@asynccontextmanager
async def redis_url(settings: Settings) -> AsyncIterator[str]:
    """The URL of the Redis to use; one of our own, while the context is open, if none is set."""
    if settings.redis_url:
        yield settings.redis_url.get_secret_value()
    else:
        async with embedded_valkey(settings.data_dir) as url:
            yield url


def process_name(kind: str) -> str:
    """A name for this process that no other of a store has."""
    return f"{kind} {socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"


def layout_watch(
    layout: StoreLayout,
    process: str,
    *,
    every: float,
    differs: Callable[[], None],
    agrees: Callable[[], None] = lambda: None,
) -> LayoutWatch:
    """What compares the store's layout with this process's; of an empty store it makes it so."""
    return LayoutWatch(
        layout,
        process,
        every=every,
        adopt=lambda: adopt_empty(layout.client, layout.own, layout.prefix),
        differs=differs,
        agrees=agrees,
    )


async def layout_problem(client: Client, settings: Settings) -> str:
    """How the store's layout differs from these settings'; empty when it does not.

    Raises StoreUnavailable.
    """
    found, own = await stored_layout(client, settings.prefix), Layout(settings.partitions)
    return "" if found in (None, str(own)) else difference(str(found), own)


def store_rules(settings: Settings) -> StoreRules:
    """What the store enforces, by these settings."""
    return StoreRules(
        partitions=settings.partitions,
        max_records=settings.max_cached_results,
        max_live=settings.max_queued,
        namespace_max=settings.namespace_max_results,
        failure_ttl=settings.failure_ttl,
        max_memos=settings.max_memos,
        by_need=settings.queue_order == "need",
        prefix=settings.prefix,
    )


def registry(settings: Settings) -> Registry:
    """The pipelines that these settings and the installed distributions give a process.

    Raises StartupError when one of them cannot be loaded, with the line of each mistake in it.
    """
    own = declared_providers(settings.providers)
    built_in = [BRIDGING] if settings.bridging else []
    loaded = [*load_installed(own), *load_pipelines(settings.pipelines, own)]
    return Registry([*built_in, *loaded], own)


def served(settings: Settings) -> Registry:
    """Return the pipelines that a worker with these settings runs: those of its pools.

    Raises StartupError as `registry`, and for a pool that none of them names.
    """
    found = registry(settings).of_pools(settings.pools)
    if settings.embeddings_url and not found.providers().isdisjoint({"vocabulary", "scan"}):
        raise StartupError(
            "HEADSTART_EMBEDDINGS_URL: the word game needs vectors of the local model. Set "
            "HEADSTART_BRIDGING=false, or no endpoint"
        )
    return found
