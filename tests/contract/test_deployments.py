"""What is peculiar to a cluster, to sentinels and to the embedded Valkey; and the URLs of all."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.asyncio import RedisCluster
from redis.exceptions import RedisError

from headstart_service.domain import Claim, Outcome, RunKey, Status
from headstart_service.domain.errors import StartupError, StoreUnavailable
from headstart_service.store.connect import API, BLOCKING, WORKER, check_version, open_client
from headstart_service.store.embedded import embedded_valkey
from headstart_service.store.redis_store import RedisStore
from tests.contract.backend import RESULT, Backend, plan
from tests.support import deployments
from tests.support.deployments import SENTINEL_SERVICE, Deployment, eventually
from tests.support.valkey import free_port
from tests.support.waiting import wait_until

KEY = RunKey("games", "game-1")


async def test_any_patience_opens_any_deployment(store_backend: Backend) -> None:
    for patience in (API, WORKER, BLOCKING):
        assert (await check_version(store_backend.client(patience))).startswith(
            ("Valkey ", "Redis ")
        )


async def test_a_clients_connections_are_bounded(store_backend: Backend) -> None:
    store = RedisStore(
        store_backend.client(API), store_backend.rules(), budget=10, connections=API.connections
    )
    before = store_backend.deployment.info("clients", "connected_clients")
    keys = [RunKey("games", f"game-{number}") for number in range(300)]
    await asyncio.gather(*(store.start(key, plan(), 60, restart=False) for key in keys))
    opened = store_backend.deployment.info("clients", "connected_clients") - before
    most = API.connections * len(store_backend.deployment.masters)
    assert opened <= most + len(store_backend.deployment.masters)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+cluster", "redis+sentinel"])
async def test_a_deployment_that_is_away_is_unavailable(scheme: str) -> None:
    path = "/service" if scheme == "redis+sentinel" else ""
    client = open_client(f"{scheme}://127.0.0.1:{free_port()}{path}", WORKER)
    with pytest.raises(StoreUnavailable):
        await check_version(client)
    await client.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "localhost:6379",
        "redis+sentinel://localhost:26379",
        "redis+sentinel://localhost/service",
        "redis+sentinel://localhost:26379/service/one",
        "redis+sentinel://localhost:26379/service/-1",
        "redis+cluster://localhost:7000/3",
        "redis://localhost/3/4",
        "redis://localhost/shop",
        "redis+cluster://localhost",
        "redis+cluster://localhost:port",
        "redis+cluster://localhost:7000?no_such_option=1",
        "redis://localhost?socket_timeout=soon",
    ],
)
def test_a_wrong_url_is_the_operators_mistake(url: str) -> None:
    with pytest.raises(StartupError, match="HEADSTART_REDIS_URL"):
        open_client(url, API)


@pytest.mark.parametrize("scheme", ["redis+cluster", "redis+sentinel", "http"])
def test_a_wrong_urls_password_is_not_told(scheme: str) -> None:
    with pytest.raises(StartupError) as refused:
        open_client(f"{scheme}://user:secret@localhost", API)
    assert "secret" not in str(refused.value)


def test_many_hosts_share_credentials_and_options() -> None:
    client = open_client(
        "redis+cluster://us%40er:p%2Fw@[::1]:7000,b:7001/?tls=true&ssl_check_hostname=false", API
    )
    assert isinstance(client, RedisCluster)
    options = client.connection_kwargs
    assert (options["username"], options["password"]) == ("us@er", "p/w")
    assert options["ssl_check_hostname"] is False
    assert [(node.host, node.port) for node in client.startup_nodes] == [("::1", 7000), ("b", 7001)]


def test_sentinels_may_have_a_password_of_their_own() -> None:
    client = open_client(
        "redis+sentinel://:master@a:1,b:2/service/3?sentinel_password=other&tls=true", API
    )
    pool = client.connection_pool
    assert pool.connection_kwargs["password"] == "master"
    assert pool.connection_kwargs["db"] == 3
    assert pool.connection_class.__name__ == "SentinelManagedSSLConnection"
    for sentinel in pool.sentinel_manager.sentinels:
        assert sentinel.connection_pool.connection_kwargs["password"] == "other"
        assert sentinel.connection_pool.connection_class.__name__ == "SSLConnection"


@pytest.fixture
def fragile_sentinel(tmp_path: Path) -> Iterator[Deployment]:
    with deployments.sentinel(tmp_path, down_after=500) as opened:
        yield opened


async def test_a_failover_loses_neither_results_nor_jobs(fragile_sentinel: Deployment) -> None:
    async with Backend.open(fragile_sentinel, 1) as backend:
        ended, waiting = RunKey("games", "ended"), RunKey("games", "waiting")
        await backend.complete(ended)
        await backend.start(waiting)
        sentinel_url = "redis://" + fragile_sentinel.url.split("/")[2]
        [old] = fragile_sentinel.masters
        with Redis.from_url(old, protocol=2) as master:
            eventually(lambda: _is_replicated(master))
            master.shutdown(nosave=True, now=True)
        with Redis.from_url(sentinel_url, protocol=2) as sentinel:

            def master_port() -> int:
                return sentinel.sentinel_get_master_addr_by_name(SENTINEL_SERVICE)[1]

            eventually(lambda: not old.endswith(f":{master_port()}"))

        async def answers() -> bool:
            try:
                await backend.store.ping()
            except StoreUnavailable:
                return False
            return True

        await wait_until(answers)
        assert (await backend.store.read(ended)).body == RESULT
        claim = await wait_until(lambda: _claimed(backend))
        assert claim.lease.job.key == waiting
        await backend.queue.finish(claim.lease, [], Status.COMPLETED, "")
        async with backend.announcements() as heard:
            await backend.start(KEY)
            assert (await anext(heard)).key == KEY


def _is_replicated(master: Redis) -> bool:
    info = master.info("replication")
    replica = info.get("slave0", {})
    return replica.get("state") == "online" and replica["offset"] == info["master_repl_offset"]


async def _claimed(backend: Backend) -> Claim | None:
    try:
        return await backend.claim()
    except StoreUnavailable:
        return None


@pytest.fixture
def fragile_cluster(tmp_path: Path) -> Iterator[Deployment]:
    with deployments.cluster(tmp_path) as opened:
        yield opened


async def _answers(store: RedisStore) -> bool:
    try:
        await store.ping()
    except StoreUnavailable:
        return False
    return True


async def test_a_cluster_that_loses_a_node_is_unavailable_and_not_broken(
    fragile_cluster: Deployment,
) -> None:
    async with Backend.open(fragile_cluster, 4) as backend:
        await backend.start(KEY)
        api = RedisStore(backend.client(API), backend.rules(), budget=0.25, connections=3)
        # A busy machine may be late with the first connections.
        await wait_until(lambda: _answers(api))
        async with backend.announcements():
            with Redis.from_url(fragile_cluster.masters[0], protocol=2) as node:
                node.shutdown(nosave=True)
            queue = backend.new_queue(budget=0.5)
            with pytest.raises(StoreUnavailable):
                await api.ping()
            with pytest.raises(StoreUnavailable):
                await queue.sweep()


async def test_a_cluster_subscription_moves_away_from_a_node_that_has_gone(
    fragile_cluster: Deployment,
) -> None:
    async with Backend.open(fragile_cluster, 4) as backend:
        async with backend.announcements():
            pass
        subscribed_to = backend.blocking.keyslot(backend.channels[0])
        node = backend.blocking.nodes_manager.get_node_from_slot(subscribed_to)
        url = f"redis://{node.host}:{node.port}"
        others = [master for master in fragile_cluster.masters if master != url]
        with Redis.from_url(url, protocol=2) as gone:
            gone.shutdown(nosave=True)
        for number, other in enumerate(others):
            with Redis.from_url(other, protocol=2) as survivor:
                survivor.config_set("cluster-require-full-coverage", "no")
                if number == 0:
                    eventually(lambda: _takes_over(survivor, node.port))

        async def subscribes() -> bool:
            try:
                async with backend.announcements():
                    return True
            except StoreUnavailable:
                return False

        await wait_until(subscribes)


def _takes_over(survivor: Redis, port: int) -> bool:
    """Give all slots of the node that has gone to this one, as an operator would."""
    for line in survivor.execute_command("CLUSTER NODES").items():
        address, details = line
        if address.endswith(f":{port}"):
            slots = [int(edge) for pair in details["slots"] for edge in pair]
            if not slots:
                return True
            survivor.execute_command("CLUSTER DELSLOTSRANGE", *slots)
            survivor.execute_command("CLUSTER ADDSLOTSRANGE", *slots)
            survivor.execute_command("CLUSTER BUMPEPOCH")
            return True
    return False


_KILLED = """
import asyncio, os, sys
from pathlib import Path
from headstart_service.store.embedded import embedded_valkey

async def main():
    async with embedded_valkey(Path(sys.argv[1])):
        os.kill(os.getpid(), 9)

asyncio.run(main())
"""

_WAITING = _KILLED.replace("os.kill(os.getpid(), 9)", "await asyncio.sleep(60)")


async def test_an_embedded_valkey_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    for expected in (Outcome.STARTED, Outcome.REUSED):
        async with (
            embedded_valkey(tmp_path) as url,
            Backend.open(Deployment(url, (url,)), 1) as backend,
        ):
            started = await backend.store.start(KEY, plan(), 60, restart=False)
            assert started.outcome is expected
            if expected is Outcome.STARTED:
                await backend.complete(KEY)
                given = await backend.raw.config_get("*")
                wanted = {
                    "port": "0",
                    "appendonly": "yes",
                    "appendfsync": "everysec",
                    "save": "",
                    "maxmemory-policy": "noeviction",
                    "dir": str(tmp_path),
                    "logfile": str(tmp_path / "valkey.log"),
                }
                assert wanted.items() <= given.items()
                socket = Path(given["unixsocket"])
                assert stat.S_IMODE(socket.stat().st_mode) == 0o700  # noqa: ASYNC240
                pid = _process_id(tmp_path)
                assert pid
                assert os.getsid(pid) == pid, "Ctrl-C in a terminal reaches its owner alone"
        assert "embedded Valkey" not in {task.get_name() for task in asyncio.all_tasks()}
        assert _process_id(tmp_path) is None


async def test_an_owner_that_was_killed_leaves_a_directory_that_can_be_used_at_once(
    tmp_path: Path,
) -> None:
    for _ in range(3):
        killed = await asyncio.create_subprocess_exec(sys.executable, "-c", _KILLED, str(tmp_path))
        assert await killed.wait() == -signal.SIGKILL
    async with embedded_valkey(tmp_path) as url:
        client = open_client(url, API)
        await check_version(client)
        await client.aclose()


async def test_a_killed_owners_valkey_has_ended_before_the_next_begins(tmp_path: Path) -> None:
    """Two that write one append-only file would ruin it."""
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", _WAITING, str(tmp_path))
    valkey = await wait_until(lambda: _process_id(tmp_path))
    os.kill(valkey, signal.SIGSTOP)
    owner.kill()
    await owner.wait()
    async with AsyncExitStack() as stack:
        begun = asyncio.ensure_future(stack.enter_async_context(embedded_valkey(tmp_path)))
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await asyncio.shield(begun)
        finally:
            os.kill(valkey, signal.SIGCONT)
        await begun


def _process_id(data_dir: Path) -> int | None:
    """Of the Valkey that answers on the directory's socket."""
    with Redis(unix_socket_path=str(data_dir / "valkey.sock"), protocol=2) as client:
        with suppress(RedisError):
            number: int = client.info("server")["process_id"]
            return number
    return None


async def test_two_owners_cannot_share_a_directory(tmp_path: Path) -> None:
    async with embedded_valkey(tmp_path):
        began = time.monotonic()
        with pytest.raises(StartupError, match=f"process {os.getpid()}"):
            async with embedded_valkey(tmp_path):
                pass
        assert time.monotonic() - began < 8  # for one that ends, it waits ten seconds


async def test_a_directory_with_a_very_long_name_can_be_used(tmp_path: Path) -> None:
    async with embedded_valkey(tmp_path / ("d" * 120)) as url:
        client = open_client(url, API)
        await check_version(client)
        await client.aclose()
