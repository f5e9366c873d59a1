"""Open Redis clients from a URL, with explicit time-outs and retries.

redis-py's defaults differ by how a client is made (0 or 10 retries, a second apart). Its
maintenance notifications hand out closed connections (redis-py #4252). So all of it is explicit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisClusterException, RedisError
from redis.maint_notifications import MaintNotificationsConfig

from ..base.urls import ENCODING
from ..domain.errors import StartupError, StoreUnavailable
from .redis_url import CLUSTER, FORMS, SENTINEL, RedisUrl, parsed_redis_url
from .refusals import reason_of
from .server_client import ServerClient

Client = Redis | RedisCluster

AWAY = (RedisError, RedisClusterException, OSError, RuntimeError, AttributeError)
"""What redis-py raises when there is no answer; a cluster's and a time-out are no RedisError.

The last two come of a connection that is lost while it is used: uvloop's transport is "closed",
or redis-py's writer None.
"""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client waits for Redis, in seconds, and how often it retries."""

    connect: float
    answer: float | None
    retries: int
    connections: int


API = Patience(connect=1.0, answer=1.0, retries=1, connections=3)
"""For callers that wait: the store's own budget ends sooner than these time-outs."""
LARGE = Patience(connect=1.0, answer=None, retries=0, connections=1)
"""For records of megabytes: `store/large_reads` gives up by a budget that grows with their size."""
WORKER = Patience(connect=1.0, answer=2.0, retries=1, connections=16)
"""For workers: minutes of work may depend on a commit, so the job queue retries for longer."""
BLOCKING = Patience(connect=1.0, answer=None, retries=0, connections=1100)
"""For commands that wait on purpose, one for each partition, and a subscription. Their callers
bound them and heal what breaks."""


def open_client(url: str, patience: Patience) -> Client:
    """Open a client for redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://.

    redis+sentinel://[user:password@]host:port[,host:port…]/service[/db] asks the sentinels for the
    master; redis+cluster://[user:password@]host:port[,host:port…] finds the cluster's nodes. In
    their query, `tls=true` means TLS to all of them; `sentinel_username` and `sentinel_password`
    are for the sentinels. The rest (`ssl_ca_certs` and the like) is as redis-py names it.
    Connects at first use. Raises StartupError for a URL that is none of these; no message
    has a part of it.
    """
    try:
        found = parsed_redis_url(url)
    except ValueError as error:
        raise StartupError(f"HEADSTART_REDIS_URL: {error}; expected {FORMS}; {ENCODING}") from None
    try:
        if found.scheme == SENTINEL:
            return _open_sentinel(found, patience)
        if found.scheme == CLUSTER:
            return _open_cluster(found, patience)
        return _server_client(_open_pool(found, patience), patience)
    except (ValueError, TypeError, RedisError, RedisClusterException) as error:
        # redis-py's message is left out: it may quote the URL.
        raise StartupError(
            f"HEADSTART_REDIS_URL: redis-py refuses its options ({type(error).__name__})"
        ) from None


def _open_pool(found: RedisUrl, patience: Patience) -> BlockingConnectionPool:
    options = _pool(patience) | _common(patience) | found.options
    if found.scheme == "unix":
        return BlockingConnectionPool(
            connection_class=UnixDomainSocketConnection, path=unquote(found.service), **options
        )
    [(host, port)] = found.nodes
    kind = SSLConnection if found.scheme == "rediss" else Connection
    return BlockingConnectionPool(connection_class=kind, host=host, port=port, **options)


def database_of(client: Client) -> int:
    """Return the number of the database that a client uses; a cluster has the first alone."""
    pool: Any = getattr(client, "connection_pool", None)  # a cluster's client has several
    return 0 if pool is None else int(pool.connection_kwargs.get("db") or 0)


class _Cluster(RedisCluster):
    """Sends each command to its node from the first one on, and asks no other node for it.

    It closes its connections even after an error of the cluster.
    """

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        # Before redis-py knows the slots, it sends a command to any node, and learns them by MOVED.
        await self.initialize()
        return await super().execute_command(*args, **kwargs)

    async def _determine_slot(self, command: str, *args: Any) -> int:
        if command == "XREADGROUP":
            # redis-py would query some node, which may be away, for the keys behind STREAMS.
            return self.keyslot(args[args.index(b"STREAMS") + 1])
        return await super()._determine_slot(command, *args)

    async def aclose(self) -> None:
        await super().aclose()
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")


def _open_cluster(found: RedisUrl, patience: Patience) -> RedisCluster:
    return _Cluster(
        startup_nodes=[ClusterNode(host, port) for host, port in found.nodes],
        # A node refuses, rather than waits, when its connections are all in use. Callers take
        # turns; the rest is for what redis-py asks meanwhile on its own account.
        max_connections=patience.connections * 2,
        # Each MOVED corrects its slot. By default every fifth cuts all connections, those on which
        # others wait included.
        reinitialize_steps=0,
        **({"socket_timeout": patience.answer} | _common(patience) | found.options),
    )


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Waits for a connection as the other pools do, and closes the sentinels' connections too."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


def _open_sentinel(found: RedisUrl, patience: Patience) -> Redis:
    options = dict(found.options)
    of_sentinels = {
        name.removeprefix("sentinel_"): options.pop(name)
        for name in ("sentinel_username", "sentinel_password")
        if name in options
    }
    tls = {name: value for name, value in options.items() if name.startswith("ssl")}
    common = _common(patience)
    # A sentinel that is away must not use up a caller's budget: another sentinel may answer.
    quick = {"socket_timeout": patience.connect, "retry": Retry(_backoff(), 0)}
    sentinel: Any = Sentinel(found.nodes, sentinel_kwargs=common | quick | tls | of_sentinels)  # type: ignore[no-untyped-call]
    options = _pool(patience) | common | options
    return _server_client(_SentinelPool(unquote(found.service), sentinel, **options), patience)  # type: ignore[no-untyped-call]


def _server_client(pool: BlockingConnectionPool, patience: Patience) -> ServerClient:
    limit = None if patience.answer is None else patience.connect + patience.answer
    client = ServerClient(connection_pool=pool, limit=limit)
    client.auto_close_connection_pool = True
    return client


def _pool(patience: Patience) -> dict[str, Any]:
    return {
        "max_connections": patience.connections,
        "timeout": patience.answer,
        "socket_timeout": None,  # `ServerClient` limits a command as a whole
    }


def _common(patience: Patience) -> dict[str, Any]:
    return {
        "protocol": 2,
        "socket_connect_timeout": patience.connect,
        "retry": Retry(_backoff(), patience.retries),
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(cap=0.5, base=0.01)


async def eviction_policy(client: Client) -> str:
    """Return Redis' `maxmemory-policy`; of a cluster one node's; empty if it is hidden."""
    try:
        info = await client.info("memory")
    except AWAY:
        return ""
    if isinstance(client, RedisCluster) and "maxmemory_policy" not in info:
        info = next(iter(info.values()))
    return str(info.get("maxmemory_policy", ""))


async def check_version(client: Client) -> str:
    """Return the server's name and version. Raises StoreUnavailable, StartupError if too old."""
    try:
        info = await client.info("server")
    except AWAY as error:
        raise StoreUnavailable(reason_of(error)) from error
    if isinstance(client, RedisCluster) and "redis_version" not in info:
        info = next(iter(info.values()))
    name, version, oldest = "Redis", str(info["redis_version"]), 7
    if "valkey_version" in info:
        name, version, oldest = "Valkey", str(info["valkey_version"]), 8
    if int(version.split(".")[0]) < oldest:
        raise StartupError(f"{name} {version} is too old: Headstart needs Redis 7 or Valkey 8")
    return f"{name} {version}"
