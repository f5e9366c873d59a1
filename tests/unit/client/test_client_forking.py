"""Calls of a process that another thread of it forks, without a real fork."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headstart import DeadlineExceeded, PrecomputeClient, _process
from headstart._channel import endpoint
from headstart._connection import BlockingConnection
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
