"""Installations of real processes that share a Redis, and whose users use the same keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from headstart.v1 import precompute_pb2 as pb
from tests.support import deployments
from tests.support.pipelines import began
from tests.support.processes import Service, api, serving, stub, worker
from tests.support.replicas import LIGHT
from tests.support.requests import noop, probe, results
from tests.support.waiting import wait_until

LEASE = {"HEADSTART_LEASE": "1"}


@pytest.fixture(params=["databases", "prefixes", "cluster"])
def installations(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[dict[str, str]]]:
    """The settings of two that share a Redis."""
    opener = deployments.cluster if request.param == "cluster" else deployments.standalone
    with opener(tmp_path) as opened:
        urls, prefixes = [opened.url] * 2, ["headstart", "a.Second_one-1"]
        if request.param == "databases":
            urls, prefixes = [f"{opened.url}/0", f"{opened.url}/1"], ["headstart"] * 2
        yield [
            {"HEADSTART_REDIS_URL": url, "HEADSTART_PREFIX": prefix, "HEADSTART_PARTITIONS": "3"}
            for url, prefix in zip(urls, prefixes, strict=True)
        ]


async def _installed(stack: AsyncExitStack, settings: dict[str, str]) -> Service:
    """An API process and a worker with these settings."""
    settings = LIGHT | LEASE | settings
    url = settings.pop("HEADSTART_REDIS_URL")
    _, address = await stack.enter_async_context(api(url, **settings))
    await stack.enter_async_context(worker(url, **settings))
    return await stack.enter_async_context(stub(address))


async def test_two_installations_on_one_redis_do_not_stop_each_others_runs(
    installations: list[dict[str, str]], tmp_path: Path
):
    own, others = tmp_path / "own", tmp_path / "others"
    own.mkdir()
    others.mkdir()
    async with AsyncExitStack() as stack:
        first, second = [await _installed(stack, settings) for settings in installations]
        await first.StartPrecompute(probe("k", own, 1))
        await wait_until(lambda: len(began(own)) == 2)
        # Its neighbour starts, replaces, cancels and starts again what has the same name.
        for value in (2, 3):
            answer = await second.StartPrecompute(probe("k", others, value))
        assert answer.outcome == pb.START_OUTCOME_REPLACED
        await second.CancelPrecompute(pb.CancelPrecomputeRequest(key="k"))
        restarted = probe("k", others, 4)
        restarted.restart = True
        assert (await second.StartPrecompute(restarted)).revision == 3
        (own / "go").touch()
        (others / "go").touch()
        for service, value in ((first, 20), (second, 50)):
            answer = await service.GetResults(results("k", 20))
            assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED
            assert answer.custom.artifacts["gated"].json.number_value == value
            assert answer.steps["gated"].attempts == 1
            stats = await service.GetStats(pb.GetStatsRequest())
            assert sum(stats.status_counts.values()) == 1
    assert [line.split()[0] for line in began(own)] == ["first", "gated"], "it was not stopped"


async def test_a_prefix_reaches_the_worker_of_serve_and_its_own_valkey(tmp_path: Path):
    settings = LIGHT | {"HEADSTART_DATA_DIR": str(tmp_path / "data")}
    async with serving("--prefix", "mine", **settings) as (_, address), stub(address) as service:
        await service.StartPrecompute(noop("k", 7))
        answer = await service.GetResults(results("k", 20))
        assert answer.custom.artifacts["nothing"].json.number_value == 7
        socket = str(tmp_path / "data" / "valkey.sock")
        async with Redis(unix_socket_path=socket, protocol=2) as client:
            names = {key.decode() async for key in client.scan_iter(count=1000)}
            channels = await client.pubsub_channels()
    assert {name.partition(":")[0] for name in names} == {"mine"}
    assert channels == [b"mine:{0}:events:0"]
