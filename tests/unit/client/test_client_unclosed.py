"""A client that is dropped unclosed is a ResourceWarning; one that could not be closed is not."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from headstart import BlockingClient, EagerPrecompute, PrecomputeClient
from headstart.v1 import precompute_pb2 as pb


def warned(work: Callable[[], object]) -> list[str]:
    """The ResourceWarnings about the client that come of it."""
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
        gc.collect()
    found = [str(each.message) for each in caught if each.category is ResourceWarning]
    return [message for message in found if "close" in message]


@pytest.fixture(autouse=True)
def _stats(service: Any) -> None:
    service.on("GetStats", pb.GetStatsResponse())
    service.on("GetStatus", pb.GetStatusResponse(status=pb.PRECOMPUTE_STATUS_COMPLETED))
    service.on("GetResults", pb.GetResultsResponse(status=pb.PRECOMPUTE_STATUS_COMPLETED))


def test_an_unclosed_client_is_warned_about(service: Any) -> None:
    async def forget() -> None:
        await PrecomputeClient(service.address).get_stats()

    assert warned(lambda: asyncio.run(forget())) == [
        f"unclosed connection to {service.address}: use `async with`, or close the client"
    ]


def test_an_unclosed_blocking_client_is_warned_about(service: Any) -> None:
    made: list[Closing] = []

    class Closing(PrecomputeClient):
        """Lets the test close the client that nobody refers to any more."""

        async def get_results(self, *key: Any, **options: Any) -> Any:
            made.append(self)
            self.loop = asyncio.get_running_loop()
            return await super().get_results(*key, **options)

    def forget() -> None:
        BlockingClient(service.address, new_client=Closing).get_results("k")

    told = warned(forget)
    asyncio.run_coroutine_threadsafe(made[0].close(), made[0].loop).result(30)
    made[0].loop.call_soon_threadsafe(made[0].loop.stop)
    assert told == ["unclosed BlockingClient: use `with`, or call its close()"]


def test_closed_and_unopened_clients_are_not(service: Any) -> None:
    async def close() -> None:
        async with PrecomputeClient(service.address) as client:
            await client.get_stats()

    def work() -> None:
        asyncio.run(close())
        with BlockingClient(service.address) as client:
            client.get_results("k")
        PrecomputeClient(service.address)
        BlockingClient(service.address)
        for client_class in (PrecomputeClient, BlockingClient):
            with pytest.raises(ValueError):
                client_class("https://h")

    assert warned(work) == []


def test_the_facade_gives_up_what_it_cannot_close_without_a_warning(service: Any) -> None:
    precompute = EagerPrecompute(service.address)

    async def use() -> None:
        assert await precompute.get_precomputed_results("k") is not None

    async def use_and_close() -> None:
        await use()
        precompute.close()

    def work() -> None:
        asyncio.run(use())
        asyncio.run(use())  # the first one's loop has ended
        precompute.close()  # the second one's too
        asyncio.run(use_and_close())

    assert warned(work) == []


@pytest.mark.parametrize("mode", ["exit", "fork"])
def test_nothing_is_warned_about_at_the_end_of_a_process(service: Any, mode: str) -> None:
    script = """
import asyncio, gc, os, sys
from headstart import BlockingClient, PrecomputeClient
loop = asyncio.new_event_loop()
client, blocking = PrecomputeClient(sys.argv[1]), BlockingClient(sys.argv[1])
loop.run_until_complete(client.get_stats())
blocking.get_results("k")
if sys.argv[2] == "fork":
    child = os.fork()
    if child == 0:
        del client, blocking
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
loop.close()
"""
    command = [sys.executable, "-X", "dev", "-W", "always", "-c", script, service.address, mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "Warning" in line]
    assert [line for line in lines if "ResourceWarning" in line] == []
