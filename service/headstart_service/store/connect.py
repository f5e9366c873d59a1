"""Opens Redis clients from a URL, with time-outs and retries that are stated, not inherited.

redis-py's defaults differ by how a client is made (0 or 10 retries, a second apart), and its
maintenance notifications hand out closed connections (redis-py #4252); so all of it is explicit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from ..errors import StartupError

Client = Redis | RedisCluster


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client waits for Redis, in seconds, and how often it tries again."""

    connect: float
    answer: float | None
    retries: int
    connections: int


API = Patience(connect=0.1, answer=0.2, retries=1, connections=3)
"""A caller waits: fail within 300 ms, so that it can compute live."""
WORKER = Patience(connect=1.0, answer=2.0, retries=3, connections=16)
"""Minutes of work may hang on a commit: outlast a restart of Redis."""
BLOCKING = Patience(connect=1.0, answer=None, retries=0, connections=64)
"""For commands that wait on purpose. Their callers bound them and heal what breaks."""


def open_client(url: str, patience: Patience) -> Client:
    """A client for redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://.

    redis+sentinel://[user:password@]host:port[,host:port…]/service[/db] asks the sentinels for the
    master; redis+cluster://[user:password@]host:port[,host:port…] finds the cluster's nodes. A
    `tls=true` in their query means TLS, with `ssl_ca_certs` and the like as redis-py names them.
    Connects at first use. Raises StartupError for a URL that is none of these.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme in ("redis+sentinel", "redis+cluster"):
            return _open_many(parts, patience)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError(f"unknown scheme {parts.scheme!r}")
        pool = BlockingConnectionPool.from_url(
            url, max_connections=patience.connections, timeout=patience.answer, **_common(patience)
        )
        return Redis.from_pool(pool)
    except (ValueError, RedisError) as error:
        # The URL itself may hold a password.
        raise StartupError(
            f"HEADSTART_REDIS_URL: {error}; expected redis://, rediss://, unix://, "
            "redis+sentinel:// or redis+cluster://"
        ) from error


def _open_many(parts: SplitResult, patience: Patience) -> Client:
    credentials, _, hosts = parts.netloc.rpartition("@")
    nodes = [_node(host) for host in hosts.split(",")]
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    common: dict[str, Any] = _common(patience)
    if options.pop("tls", "false") == "true":
        common["ssl"] = True
    common.update(options)
    if credentials:
        user, _, password = credentials.partition(":")
        common["username"] = unquote(user) or None
        common["password"] = unquote(password) or None
    if parts.scheme == "redis+cluster":
        return RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in nodes],
            max_connections=patience.connections,
            **common,
        )
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("redis+sentinel:// needs the service's name as its path")
    sentinel: Any = Sentinel(nodes, sentinel_kwargs=_common(patience))  # type: ignore[no-untyped-call]
    master: Redis = sentinel.master_for(service, db=int(db or 0), **common)
    return master


def _node(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host:
        raise ValueError(f"{text!r} is not host:port")
    return host.strip("[]"), int(port)


def _common(patience: Patience) -> dict[str, Any]:
    return {
        "protocol": 2,
        "socket_connect_timeout": patience.connect,
        "socket_timeout": patience.answer,
        "retry": Retry(ExponentialWithJitterBackoff(cap=0.5, base=0.01), patience.retries),
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


async def check_version(client: Client) -> str:
    """The server's name and version. Raises StartupError when it is too old."""
    info = await client.info("server")
    if isinstance(client, RedisCluster) and "redis_version" not in info:
        info = next(iter(info.values()))
    name, version, oldest = "Redis", str(info["redis_version"]), 7
    if "valkey_version" in info:
        name, version, oldest = "Valkey", str(info["valkey_version"]), 8
    if int(version.split(".")[0]) < oldest:
        raise StartupError(f"{name} {version} is too old: Headstart needs Redis 7 or Valkey 8")
    return f"{name} {version}"
