"""Streams whose API process and worker are killed: no token is lost or doubled."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.streams_watched import watch_through_kills
from headstart import PrecomputeClient
from tests.support.processes import api, worker
from tests.support.valkey import Valkey

pytestmark = pytest.mark.chaos

SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": "benchmarks.pipelines:STREAM",
    "HEADSTART_LEASE": "1.5",
    "HEADSTART_WORKER_CONCURRENCY": "60",
}
STREAMS, TOKENS = 100, 60


async def test_a_hundred_streams_lose_and_double_no_token_through_kills(valkey: Valkey):
    async with (
        api(valkey.url, **SETTINGS) as (killed, one),
        api(valkey.url, **SETTINGS) as (_, two),
        worker(valkey.url, **SETTINGS) as lost,
        worker(valkey.url, **SETTINGS),
        PrecomputeClient(f"ipv4:{one},{two}", timeout=30) as client,
        asyncio.timeout(120),
    ):
        keys = [f"stream-{number}" for number in range(STREAMS)]
        kills = (killed.kill, lost.kill)
        watched = await watch_through_kills(client, keys, TOKENS, 0.1, kills)
    print(f"{watched.tokens} tokens, {watched.restarts} restarts")
    assert watched.wrong == 0
    assert 0 < watched.restarts < STREAMS, "some had the other worker"
    # Each step that has begun anew was told, and nothing else was called a restart.
    assert watched.begins - STREAMS == watched.restarts
