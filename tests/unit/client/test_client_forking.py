"""Calls of a process that another thread of it forks, without a real fork."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from headstart import DeadlineExceeded, PrecomputeClient
from headstart._transport import forks
from headstart._transport.blocking_connection import BlockingConnection
from headstart._transport.call_errors import Rested
from headstart._transport.connection import Connection
from headstart._transport.endpoint import endpoint
from headstart.v1 import precompute_pb2 as pb
from tests.support.virtual_time import run_virtually


@pytest.fixture
def forking() -> Iterator[None]:
    """A thread that forks and forks, so that no channel may be opened."""
    forks.before_fork()
    yield
    forks.after_fork_in_parent()


@pytest.mark.usefixtures("forking")
async def test_forks_without_a_pause_do_not_prolong_a_call(refused: str) -> None:
    async with PrecomputeClient(refused) as client:
        with pytest.raises(DeadlineExceeded, match="forked"):
            await client.get_stats(timeout=0.01)
    connection = BlockingConnection(endpoint(refused))
    with pytest.raises(DeadlineExceeded, match="forked"):
        connection.call(lambda stub: stub.GetStats, pb.GetStatsRequest(), timeout=0.01)


def test_a_call_that_a_fork_makes_anew_has_only_the_rest_of_its_time(
    refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
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

    async def call() -> None:
        connection: Any = Connection(endpoint(refused), ())
        await connection.call(lambda _: asynchronous, pb.GetStatsRequest(), 5.0)
        await connection.close(None)

    run_virtually(call())
    others: Any = BlockingConnection(endpoint(refused))
    others.call(lambda _: blocking, pb.GetStatsRequest(), 5.0)
    others.close()
    assert given == [5.0, 2.0] * 2
