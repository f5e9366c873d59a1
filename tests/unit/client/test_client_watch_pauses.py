"""How long a watch pauses between its streams: by a virtual clock."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from headstart import PrecomputeClient, ServiceUnavailable
from headstart.v1 import precompute_pb2 as pb
from tests.support.virtual_time import run_virtually
from tests.unit.client.messages import run
from tests.unit.client.virtual_channel import DAY, Channel, use

CUT = ServiceUnavailable("cut")


async def watched_to_its_end(client: PrecomputeClient) -> None:
    async with asyncio.timeout(DAY):
        with pytest.raises(ServiceUnavailable, match=r"^cut$|ended before the run did"):
            async for _ in client.watch_results("k"):
                pass


async def watched_by_a_client() -> None:
    async with PrecomputeClient("localhost:1") as client:
        await watched_to_its_end(client)


@pytest.mark.parametrize(
    ("error", "pauses"),
    [
        (None, [0.2, 0.4, 0.8, 1.6, 3.0]),
        (CUT, [0.2, 0.4, 0.8, 1.6, 3.0]),
        (ServiceUnavailable("cut", 1.0), [1.0, 1.0, 1.0, 1.6, 3.0]),
        (ServiceUnavailable("cut", 60.0), [3.0] * 5),
    ],
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_watch_that_brings_nothing_ends_after_six_tries_and_growing_pauses(
    monkeypatch: pytest.MonkeyPatch, which: int, error: Exception | None, pauses: list[float]
) -> None:
    # Every random number is the least, 0, or the largest, 1, that it may be.
    monkeypatch.setattr(random, "uniform", lambda *ends: ends[which])
    channel = Channel(error=error)
    use(channel, monkeypatch)
    run_virtually(watched_by_a_client())
    share = (0.5, 1.0)[which]
    assert channel.pauses == [pytest.approx(pause * share) for pause in pauses]
    assert channel.left == 6


def test_streams_that_lived_for_more_than_five_seconds_were_healthy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def watch_for_long() -> None:
        client = PrecomputeClient("localhost:1")
        watching = asyncio.create_task(watched_to_its_end(client))
        await asyncio.sleep(100.0)
        assert not watching.done()
        await client.close()
        await watching

    monkeypatch.setattr(random, "uniform", lambda *ends: ends[1])
    healthy, short = Channel(5.01, CUT), Channel(4.99, CUT)
    use(healthy, monkeypatch)
    run_virtually(watch_for_long())
    assert set(healthy.pauses) == {0.2}
    use(short, monkeypatch)
    run_virtually(watched_by_a_client())
    assert len(short.watches) == 6


@pytest.mark.parametrize(
    ("silent", "messages", "channels"), [(0.9, 0, 1), (1.1, 0, 2), (1.1, 1, 1)]
)
def test_a_watch_that_got_nothing_for_a_second_leaves_its_channel(
    monkeypatch: pytest.MonkeyPatch, silent: float, messages: int, channels: int
) -> None:
    async def answer(name: str, request: Any) -> Any:
        return pb.GetStatsResponse()

    async def watch_for_long() -> None:
        async with PrecomputeClient("localhost:1") as client:
            await client.get_stats()
            await asyncio.sleep(1.0)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(silent):
                    async for _ in client.watch_results("k"):
                        pass
            await client.get_stats()

    channel = Channel(lives=DAY)
    channel.answer = answer
    under_way = run(pb.PRECOMPUTE_STATUS_PENDING)
    channel.messages = [pb.WatchResultsResponse(results=under_way)] * messages
    use(channel, monkeypatch)
    run_virtually(watch_for_long())
    assert channel.opened == channels
