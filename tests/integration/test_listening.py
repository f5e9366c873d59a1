"""What HEADSTART_HOST means: the same addresses for the gRPC and the HTTP port."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack, closing

import grpc
import pytest

from headstart_service.base.listening import (
    addresses,
    is_loopback,
    listen,
    reachable,
    url_host,
)
from headstart_service.config.loading import load_settings
from headstart_service.store.redis_url import parsed_redis_url
from tests.support.commands import run_here
from tests.support.pipelines import REFERENCES
from tests.support.processes import serving, stub
from tests.support.requests import noop
from tests.support.valkey import Valkey

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return socket.has_dualstack_ipv6()


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no address ::1")
BOTH = {"127.0.0.1", "::1"}


def connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        pytest.param("::", BOTH, marks=needs_ipv6),
        pytest.param("[::]", BOTH, marks=needs_ipv6),
        pytest.param("0.0.0.0", BOTH, marks=needs_ipv6),
        pytest.param("localhost", BOTH, marks=needs_ipv6),
        pytest.param("::1", {"::1"}, marks=needs_ipv6),
        pytest.param("[::1]", {"::1"}, marks=needs_ipv6),
        ("127.0.0.1", {"127.0.0.1"}),
    ],
)
async def test_a_host_means_the_same_addresses_on_both_ports(
    valkey: Valkey, host: str, reached: set[str]
):
    settings = {"HEADSTART_HOST": host, "HEADSTART_INSECURE": "true", **LIGHT}
    async with serving("--no-worker", HEADSTART_REDIS_URL=valkey.url, **settings) as (process, _):
        found = await process.says(r"gRPC on \S+:(\d+), HTTP on \S+:(\d+)")
        for port in map(int, found.groups()):
            assert {each for each in BOTH if connects(each, port)} == reached, found[0]
        served = (await process.says(r"Headstart serves on (\S+)\. Try"))[1]
        async with stub(served) as service:
            await service.StartPrecompute(noop("k"))
        code, said = run_here("healthcheck", "--grpc-port", found[1], HEADSTART_HOST=host)
        assert (code, said.count("SERVING")) == (0, 1), said


@needs_ipv6
async def test_a_server_and_its_redis_need_no_ipv4(valkey: Valkey):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
        port = probe.getsockname()[1]
    async with valkey.client() as client:
        await client.config_set("bind", "127.0.0.1 ::1")
    url = f"redis://[::1]:{valkey.port}"
    settings = {"HEADSTART_HOST": "::1", "HEADSTART_REDIS_URL": url, **LIGHT}
    async with serving("--no-worker", **settings, HEADSTART_GRPC_PORT=str(port)) as (_, address):
        assert address == f"[::1]:{port}"
        async with grpc.aio.insecure_channel(address) as channel:
            await channel.channel_ready()


def test_hosts_are_parsed_alike_with_and_without_brackets(monkeypatch: pytest.MonkeyPatch):
    for given, host, url, local in (
        ("[::]", "::", "[::]", "localhost"),
        ("::", "::", "[::]", "localhost"),
        ("0.0.0.0", "0.0.0.0", "0.0.0.0", "localhost"),
        ("[::1]", "::1", "[::1]", "::1"),
        ("fd00::1", "fd00::1", "[fd00::1]", "fd00::1"),
        ("localhost", "localhost", "localhost", "localhost"),
        ("api.internal", "api.internal", "api.internal", "api.internal"),
    ):
        monkeypatch.setenv("HEADSTART_HOST", given)
        settings = load_settings({})
        assert (settings.host, url_host(settings.host), reachable(settings.host)) == (
            host,
            url,
            local,
        )
    for url in ("redis://[fd00::1]:7000", "redis+cluster://[fd00::1]:7000"):
        assert parsed_redis_url(url).nodes == [("fd00::1", 7000)]


@pytest.mark.parametrize("host", ["::", "[::]", "0.0.0.0", "[::ffff:0.0.0.0]"])
def test_every_address_without_tls_is_refused_in_each_spelling(host: str):
    code, said = run_here("check-config", HEADSTART_HOST=host)
    assert code == 2
    assert "can be read on the network" in said


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("LocalHost", ["127.0.0.1", "[::1]"]),
        ("::ffff:127.0.0.1", ["127.0.0.1"]),
        ("::ffff:0.0.0.0", ["[::]"]),
    ],
)
def test_other_spellings_of_an_address_are_that_address(host: str, expected: list[str]):
    with ExitStack() as opened:
        sockets = [opened.enter_context(closing(each)) for each in listen(host, 0)]
        assert [each.rpartition(":")[0] for each in addresses(sockets)] == expected
    assert is_loopback(host) == ("0.0.0.0" not in host)


def test_a_machine_without_ipv6_listens_on_ipv4_alone(monkeypatch: pytest.MonkeyPatch):
    create = socket.create_server

    def without_ipv6(address: tuple[str, int], **options: object) -> socket.socket:
        if ":" in address[0]:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return create(address, **options)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    for host, expected in (("localhost", "127.0.0.1"), ("0.0.0.0", "0.0.0.0")):
        [only] = listen(host, 0)
        with closing(only):
            assert [*addresses([only])] == [f"{expected}:{only.getsockname()[1]}"]
    with pytest.raises(OSError, match="Cannot assign"):
        listen("::1", 0)


@needs_ipv6
def test_a_port_that_is_taken_on_one_of_the_addresses_is_taken():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        with pytest.raises(OSError, match="in use") as caught:
            listen("localhost", other.getsockname()[1])
        assert caught.value.errno == errno.EADDRINUSE
    for _ in range(20):
        sockets = listen("localhost", 0)
        assert len({each.getsockname()[1] for each in sockets}) == 1
        for each in sockets:
            each.close()
