"""Installations of real processes that share a Redis, and whose users use the same keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain.errors import StoreUnavailable
from headstart_service.processes.lifecycle import redis_client
from headstart_service.store.connect import API
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.store_rules import StoreRules
from tests.support import deployments
from tests.support.commands import done_here
from tests.support.pipelines import began
from tests.support.processes import Service, api, serving, stub, worker
from tests.support.replicas import LIGHT
from tests.support.requests import json_of, noop, probe, results
from tests.support.waiting import wait_until

LEASE = {"HEADSTART_LEASE": "1"}


@pytest.fixture
def installations(tmp_path: Path) -> Iterator[list[dict[str, str]]]:
    """The settings of two that share a server and differ by their prefix.

    tests/contract/test_store_installations.py has databases, and every kind of Redis.
    """
    with deployments.standalone(tmp_path) as opened:
        shared = [(opened.url, "headstart"), (opened.url, "a.Second_one-1")]
        yield [{"HEADSTART_REDIS_URL": url, "HEADSTART_PREFIX": name} for url, name in shared]


async def _installed(stack: AsyncExitStack, settings: dict[str, str]) -> Service:
    """An API process and a worker with these settings."""
    settings = LIGHT | LEASE | settings
    url = settings.pop("HEADSTART_REDIS_URL")
    _, address = await stack.enter_async_context(api(url, **settings))
    await stack.enter_async_context(worker(url, **settings))
    return await stack.enter_async_context(stub(address))


@pytest.mark.promise("Installations on one Redis are isolated", "prefix in keys and channels")
async def test_installations_on_one_redis_do_not_stop_each_others_runs(
    installations: list[dict[str, str]], tmp_path: Path
):
    async with AsyncExitStack() as stack:
        installed = (_installed(stack, settings) for settings in installations)
        first, *others = await asyncio.gather(*installed)
        directories = [tmp_path / str(number) for number in range(len(installations))]
        for directory in directories:
            directory.mkdir()
        await first.StartPrecompute(probe("k", directories[0], 1))
        await wait_until(lambda: len(began(directories[0])) == 2)
        # Each neighbour starts, replaces, cancels and starts again what has the same name.
        for other, directory in zip(others, directories[1:], strict=True):
            for value in (2, 3):
                answer = await other.StartPrecompute(probe("k", directory, value))
            assert answer.outcome == pb.START_OUTCOME_REPLACED
            await other.CancelPrecompute(pb.CancelPrecomputeRequest(key="k"))
            restarted = probe("k", directory, 4)
            restarted.restart = True
            assert (await other.StartPrecompute(restarted)).revision == 3
        for service, directory in zip((first, *others), directories, strict=True):
            (directory / "go").touch()
            answer = await service.GetResults(results("k", 20))
            assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED
            value = 20 if service is first else 50
            assert json_of(answer, "gated") == value
            stats = await service.GetStats(pb.GetStatsRequest())
            assert sum(stats.status_counts.values()) == 1
    names = [line.split()[0] for line in began(directories[0])]
    assert names == ["first", "gated"], "it was not stopped"


async def test_a_prefix_reaches_the_worker_of_serve_and_its_own_valkey(tmp_path: Path):
    settings = LIGHT | {"HEADSTART_DATA_DIR": str(tmp_path / "data")}
    async with serving("--prefix", "mine", **settings) as (_, address), stub(address) as service:
        await service.StartPrecompute(noop("k", 7))
        answer = await service.GetResults(results("k", 20))
        assert json_of(answer, "nothing") == 7
        socket = str(tmp_path / "data" / "valkey.sock")
        async with Redis(unix_socket_path=socket, protocol=2) as client:
            names = {key.decode() async for key in client.scan_iter(count=1000)}
            channels = await client.pubsub_shardchannels()
    assert {name.partition(":")[0] for name in names} == {"mine"}
    assert {channel.rpartition(b":")[0] for channel in channels} == {b"mine:{0}:events:0"}


@pytest.mark.parametrize(
    ("command", "code"),
    [(("check-config",), 2), (("doctor", "--local"), 1), (("repartition", "--to", "3"), 4)],
    ids=lambda each: each[0] if isinstance(each, tuple) else "",
)
def test_a_command_whose_user_may_not_use_the_prefix_names_what_to_grant(
    command: tuple[str, ...], code: int, tmp_path: Path
):
    with deployments.acl(tmp_path) as opened:
        settings = LIGHT | {"HEADSTART_REDIS_URL": opened.url, "HEADSTART_PREFIX": "third"}
        done = done_here(*command, **settings)
    assert done.code == code, done
    assert "Redis denies a right" in done.out + done.err
    assert "HEADSTART_PREFIX" in done.out + done.err
    assert "no process has used" not in done.out
    assert "nothing to move" not in done.out


async def test_a_user_without_the_channels_is_refused_before_anything_is_written(tmp_path: Path):
    rights = ("~headstart:*", "+@all", "-@admin", "-@dangerous", "+info")
    with deployments.standalone(tmp_path) as opened:
        async with Redis.from_url(opened.url) as admin:
            await admin.execute_command("ACL", "SETUSER", "mute", "on", ">s3cret", *rights)
            url = opened.url.replace("//", "//mute:s3cret@")
            rules = StoreRules(partitions=1, max_records=2, namespace_max=0, failure_ttl=60)
            async with redis_client(url, API) as client:
                store = RedisStore(client, rules, budget=5, connections=1)
                with pytest.raises(StoreUnavailable, match="Redis denies a right"):
                    await store.prepare()
                await store.aclose()
            written = {key async for key in admin.scan_iter()}
            assert written <= {b"headstart:{0}:layout"}
