"""Connections that something between drops without a word, and answers that are lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headstart import DeadlineExceeded, EagerPrecompute, NotFound, PrecomputeClient
from headstart._clients.blocking_client import BlockingClient
from tests.integration.conftest import grpc_address
from tests.support.processes import run_headstart
from tests.support.proxy import Proxy, proxy
from tests.support.replicas import LIGHT
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

LONG = 30.0
SHORT = 0.5


@dataclass(frozen=True)
class Way:
    """A proxy before an API, and both addresses."""

    proxy: Proxy
    address: str
    direct: str


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a worker."""
    ports = {"HEADSTART_GRPC_PORT": "0", "HEADSTART_HTTP_PORT": "0"}
    directory = tmp_path_factory.mktemp("data")
    process = run_headstart("serve", HEADSTART_DATA_DIR=str(directory), **ports, **LIGHT)
    try:
        yield grpc_address(process)
    finally:
        process.stop()


@pytest.fixture
async def way(direct: str) -> AsyncIterator[Way]:
    async with proxy(int(direct.rpartition(":")[2])) as between:
        yield Way(between, f"127.0.0.1:{between.port}", direct)


async def test_a_restart_whose_answers_are_lost_begins_one_run(way: Way):
    async with (
        PrecomputeClient(way.address, timeout=LONG) as client,
        PrecomputeClient(way.direct) as watching,
    ):
        await client.start("its-key", "noop", {"value": 1})
        for revision in (2, 3):
            way.proxy.lose_after(b"its-key")
            start = client.start("its-key", "noop", {"value": 1}, restart=True)
            starting = asyncio.create_task(start)

            async def begun(revision: int = revision) -> bool:
                return (await watching.get_status("its-key")).revision == revision

            await wait_until(begun)
            assert way.proxy.cut()
            started = await starting
            assert (started.outcome, started.revision) == ("started", revision)
        assert (await watching.get_status("its-key")).revision == 3


async def test_a_call_after_a_lost_flow_fails_by_its_budget_and_the_next_connects_anew(way: Way):
    async with PrecomputeClient(way.address) as client:
        for _ in range(2):
            await client.get_stats(timeout=LONG)
            assert way.proxy.lose() == 1
            with pytest.raises(DeadlineExceeded):
                await client.get_stats(timeout=SHORT)
        await client.get_stats(timeout=LONG)


async def test_blocking_clients_and_the_facade_connect_anew_too(way: Way, tmp_path: Path):
    facade = EagerPrecompute(way.address)

    def blocking() -> None:
        with BlockingClient(way.address) as client:
            client.start("held", "probe", {"directory": str(tmp_path)}, timeout=LONG)
            way.proxy.lose()
            with pytest.raises(DeadlineExceeded):
                client.get_results("held", timeout=SHORT)
            assert not client.get_results("held", timeout=LONG).status.ended

    await asyncio.to_thread(blocking)

    async def asked() -> str | None:
        return await asyncio.to_thread(facade.get_status, "held")

    async def fetched() -> str | None:
        result = await facade.get_precomputed_results("held")
        return result.status if result else None

    for ask in (asked, fetched):
        await wait_until(ask)
        way.proxy.lose()
        assert await ask() is None
        await wait_until(ask)
    facade.close()
    async with PrecomputeClient(way.direct) as client:
        await client.cancel("held")


async def test_get_or_compute_finds_its_way_back_after_a_lost_flow(way: Way):
    async def nothing() -> int:
        await asyncio.sleep(SHORT)
        return 2

    async with PrecomputeClient(way.address) as client:
        await client.start("done", "noop", {"value": 1}, timeout=LONG)
        await client.get_results("done", wait=LONG)
        way.proxy.lose()

        async def source() -> str:
            computed = await client.get_or_compute("done", LONG, {"nothing": nothing})
            return computed.sources["nothing"]

        assert await source() == "live"

        async def is_back() -> bool:
            return await source() == "ready"

        await wait_until(is_back, 30)


async def test_an_idle_connection_is_kept_in_use_by_pings(way: Way):
    options = [("grpc.keepalive_time_ms", 500)]
    async with PrecomputeClient(way.address, options=options) as client:
        with pytest.raises(NotFound):
            await client.get_status("nobody", timeout=LONG)
        [link] = way.proxy.links
        carried = link.carried
        await wait_until(lambda: link.carried >= carried + 2)
