"""Calls of a process that another thread of it forks, without a real fork."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from headstart import DeadlineExceeded, PrecomputeClient, _process
from headstart._channel import endpoint
from headstart._connection import BlockingConnection, Connection, Rested
from headstart.v1 import precompute_pb2 as pb


@pytest.fixture
def forking() -> Iterator[None]:
    """A thread that forks and forks, so that no channel may be opened."""
    _process._before()
    yield
    _process._after_in_parent()


@pytest.mark.usefixtures("forking")
async def test_forks_without_a_pause_do_not_prolong_a_call(refused: str) -> None:
    async with PrecomputeClient(refused) as client:
        with pytest.raises(DeadlineExceeded, match="forked"):
            await client.get_stats(timeout=0.01)
    connection = BlockingConnection(endpoint(refused))
    with pytest.raises(DeadlineExceeded, match="forked"):
        connection.call(lambda stub: stub.GetStats, pb.GetStatsRequest(), timeout=0.01)


async def test_a_call_that_a_fork_makes_anew_has_only_the_rest_of_its_time(
    refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    clock = SimpleNamespace(monotonic=lambda: now, sleep=lambda _: None)
    monkeypatch.setattr("headstart._connection.time", clock)
    given: list[float] = []

    def blocking(_: Any, **options: Any) -> pb.GetStatsResponse:
        nonlocal now
        given.append(options["timeout"])
        if len(given) % 2:
            now += 3.0
            raise Rested
        return pb.GetStatsResponse()

    async def asynchronous(request: Any, **options: Any) -> pb.GetStatsResponse:
        return blocking(request, **options)

    connection: Any = Connection(endpoint(refused), ())
    await connection.call(lambda _: asynchronous, pb.GetStatsRequest(), 5.0)
    await connection.close(None)
    others: Any = BlockingConnection(endpoint(refused))
    others.call(lambda _: blocking, pb.GetStatsRequest(), 5.0)
    others.close()
    assert given == [5.0, 2.0] * 2
