"""Parse HEADSTART_REDIS_URL strictly: parts that redis-py ignores may belong to a password."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS

from ..base.urls import host_and_port, parsed_url

FORMS: Final = "redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
SENTINEL, CLUSTER = "redis+sentinel", "redis+cluster"
_SEVERAL: Final = (SENTINEL, CLUSTER)
_SCHEMES: Final = ("redis", "rediss", "unix", *_SEVERAL)
_PLAIN_OPTIONS: Final = (
    *("db", "username", "password", "client_name", "protocol", "max_connections", "timeout"),
    *("health_check_interval", "retry_on_timeout"),
    *("socket_connect_timeout", "socket_timeout", "socket_read_size"),
)
_TCP_OPTIONS: Final = ("socket_keepalive",)
_TLS_OPTIONS: Final = (
    *("ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_keyfile"),
    *("ssl_password", "ssl_check_hostname", "ssl_ciphers", "ssl_min_version"),
    *("ssl_include_verify_flags", "ssl_exclude_verify_flags"),
)
_NOT_OF_CLUSTERS: Final = frozenset({"timeout", "retry_on_timeout", "ssl_ca_path", "ssl_password"})
_SECRET_OPTIONS: Final = ("password", "ssl_password", "sentinel_password")


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """The address of Redis and the options of its clients, with redis-py's names and types."""

    scheme: str
    nodes: list[tuple[str, int]]
    """Hosts and ports; none for unix://."""
    service: str
    """What sentinels call the master; the path of the socket for unix://; else empty."""
    options: dict[str, Any]

    @property
    def secret(self) -> bool:
        """Whether it holds a password."""
        return any(name in self.options for name in _SECRET_OPTIONS)


def parsed_redis_url(text: str) -> RedisUrl:
    """Return the parsed URL. Raises ValueError, whose text has no part of the URL."""
    url = parsed_url(text)
    if url.scheme not in _SCHEMES:
        raise ValueError("it begins with none of these schemes")
    options = _options(url.query, url.scheme)
    for name, value in (("username", url.username), ("password", url.password)):
        if value is not None:
            options[name] = value
    if url.scheme == "unix":
        if url.hosts or not url.path:
            raise ValueError("unix:// must be followed by the path of a socket")
        return RedisUrl(url.scheme, [], url.path, options)
    service, path = "", url.path.removeprefix("/")
    if url.scheme == SENTINEL:
        service, _, path = path.partition("/")
        if not service:
            raise ValueError("redis+sentinel:// needs the service's name as its path")
    database = _database(path)
    if database is not None:
        options.setdefault("db", database)
    if url.scheme == CLUSTER and options.pop("db", 0):
        raise ValueError(
            "a cluster has one database: give each installation a HEADSTART_PREFIX of its own"
        )
    return RedisUrl(url.scheme, _nodes(url.hosts, several=url.scheme in _SEVERAL), service, options)


def holds_secret(text: str) -> bool:
    """Whether a URL has a password; one that cannot be parsed counts as if it had."""
    try:
        return parsed_redis_url(text).secret
    except ValueError:
        return "@" in text or any(f"{name}=" in text for name in _SECRET_OPTIONS)


def _database(path: str) -> int | None:
    path = path.removesuffix("/")
    if path and not (path.isascii() and path.isdigit()):
        raise ValueError("what follows the host's / must be the number of a database")
    return int(path) if path else None


def _nodes(text: str, *, several: bool) -> list[tuple[str, int]]:
    nodes = []
    for each in text.split(",") if several else [text]:
        host, port = host_and_port(each)
        if several and not (host and port):
            raise ValueError("each of its hosts must be host:port")
        nodes.append((host or "localhost", port or 6379))
    return nodes


def _options(query: str, scheme: str) -> dict[str, Any]:
    known = [*_PLAIN_OPTIONS]
    if scheme != "unix":
        known += _TCP_OPTIONS
    if scheme in ("rediss", *_SEVERAL):
        known += _TLS_OPTIONS
    if scheme in _SEVERAL:
        known += ["tls"]
    if scheme == SENTINEL:
        known += ["sentinel_username", "sentinel_password"]
    if scheme == CLUSTER:
        known = [name for name in known if name not in _NOT_OF_CLUSTERS]
    options: dict[str, Any] = {}
    for number, part in enumerate(query.split("&") if query else [], 1):
        name, _, value = part.partition("=")
        if name not in known or not value:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.8)
            advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise ValueError(
                f"option {number} behind its ? is none that {scheme}:// has, or has no value; "
                f"{advice}"
            )
        convert: Callable[[str], Any] = URL_QUERY_ARGUMENT_PARSERS.get(name, str)
        try:
            options.setdefault(name, convert(unquote_plus(value)))
        except (ValueError, TypeError):
            raise ValueError(f"the value of its option {name} is of a wrong type") from None
    if options.pop("tls", "false") == "true":
        options["ssl"] = True
    return options
