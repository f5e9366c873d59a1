"""TLS on real servers: who may connect, with what, and a certificate that changes meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from headstart import EagerPrecompute, PrecomputeClient, ServiceUnavailable, Tls
from headstart._transport.endpoint import endpoint
from tests.support.certificates import Certificate, authority, signed
from tests.support.commands import run_here
from tests.support.pipelines import REFERENCES
from tests.support.processes import Process, api, headstart, run_headstart
from tests.support.proxy import proxy
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}


@dataclass(frozen=True)
class Authority:
    """An authority and a directory for what it signs."""

    root: Certificate
    directory: Path

    def signs(self, name: str, hosts: str = "localhost") -> Certificate:
        return signed(self.root, self.directory, name, hosts)


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    directory = tmp_path_factory.mktemp("ours")
    return Authority(authority(directory, "ours"), directory)


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    directory = tmp_path_factory.mktemp("foreign")
    return Authority(authority(directory, "foreign"), directory)


@asynccontextmanager
async def tls_api(
    valkey: Valkey, server: Certificate, **settings: str
) -> AsyncIterator[tuple[Process, str]]:
    """An API process with this certificate; gives its address by the name in it."""
    files = {"HEADSTART_TLS_CERT": str(server.cert), "HEADSTART_TLS_KEY": str(server.key)}
    async with api(valkey.url, **files, **LIGHT, **settings) as (process, address):
        yield process, f"localhost:{address.rpartition(':')[2]}"


async def connects(address: str, tls: Tls | None) -> bool:
    async with PrecomputeClient(address, tls=tls, max_attempts=1, timeout=10) as client:
        try:
            await client.get_stats()
        except ServiceUnavailable:
            return False
        return True


async def run(*command: str, **environment: str) -> tuple[int, str]:
    """A command's exit code, and all that it said."""
    if command[0] != "serve":
        return await asyncio.to_thread(run_here, *command, **environment)
    process = run_headstart(*command, **environment)
    try:
        return await process.ended(60), process.output
    finally:
        process.stop()


@pytest.mark.promise("Traffic is unreadable", "TLS is the gRPC port's only protocol")
async def test_only_a_client_that_trusts_the_server_speaks_to_it(
    valkey: Valkey, ours: Authority, foreign: Authority
):
    async with tls_api(valkey, ours.signs("server")) as (_, address):
        assert await connects(address, Tls(ca=ours.root.cert))
        assert not await connects(address, Tls(ca=foreign.root.cert))
        assert not await connects(address, Tls())
        assert not await connects(address, None), "the port speaks TLS alone"


@pytest.mark.promise("A server cannot be impersonated", "clients check authority and name")
async def test_the_servers_name_must_be_the_one_asked_for(valkey: Valkey, ours: Authority):
    async with tls_api(valkey, ours.signs("elsewhere", "headstart.example")) as (_, address):
        assert not await connects(address, Tls(ca=ours.root.cert))
        named = Tls(ca=ours.root.cert, server_name="headstart.example")
        assert await connects(address, named)


@pytest.mark.promise("Only certified clients connect with mTLS", "`HEADSTART_TLS_CLIENT_CA`")
async def test_with_a_client_authority_only_its_clients_speak_to_the_server(
    valkey: Valkey, ours: Authority, foreign: Authority
):
    mine, theirs = ours.signs("client"), foreign.signs("client")
    settings = {"HEADSTART_TLS_CLIENT_CA": str(ours.root.cert)}
    async with tls_api(valkey, ours.signs("server"), **settings) as (process, address):
        ca = ours.root.cert
        assert await connects(address, Tls(ca=ca, cert=mine.cert, key=mine.key))
        assert not await connects(address, Tls(ca=ca, cert=theirs.cert, key=theirs.key))
        assert not await connects(address, Tls(ca=ca))
        assert "client certificates required" in process.output


def shown_by(address: str) -> bytes:
    """The certificate that a new connection is shown, whoever signed it."""
    host, port = address.split(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname=host) as wrapped:
            shown = wrapped.getpeercert(binary_form=True)
    assert shown
    return shown


@pytest.mark.promise("Certificates renew without restart", "checked every second")
async def test_a_new_certificate_serves_new_connections_and_the_old_ones_go_on(
    valkey: Valkey, ours: Authority, foreign: Authority, tmp_path: Path
):
    files = Certificate(tmp_path / "server.pem", tmp_path / "server.key")
    install(ours.signs("first"), files)
    async with tls_api(valkey, files) as (process, address):
        before = await asyncio.to_thread(shown_by, address)
        async with PrecomputeClient(address, tls=Tls(ca=ours.root.cert)) as old:
            await old.get_stats()
            install(foreign.signs("second"), files)

            async def shows_another() -> bool:
                return await asyncio.to_thread(shown_by, address) != before

            await wait_until(shows_another)
            assert await connects(address, Tls(ca=foreign.root.cert))
            assert not await connects(address, Tls(ca=ours.root.cert))
            await old.get_stats()
        # Half of a renewal: the certificate that was read before goes on being shown.
        shutil.copy(ours.signs("third").cert, files.cert)
        await process.says("the certificate that was read before stays in force")
        assert await connects(address, Tls(ca=foreign.root.cert))
        assert process.output.count("the certificate that was read before stays in force") == 1
        install(ours.signs("fourth"), files)
        await wait_until(lambda: connects(address, Tls(ca=ours.root.cert)))
        assert "BEGIN" not in process.output


def install(new: Certificate, place: Certificate) -> None:
    """Put a certificate and its key in place, each at once, the certificate first."""
    for source, target in ((new.cert, place.cert), (new.key, place.key)):
        shutil.copy(source, target.with_suffix(".new"))
        target.with_suffix(".new").rename(target)


@pytest.mark.promise("A client's renewal needs no restart", "files are compared and checked")
async def test_a_client_reads_its_renewed_files_again_and_its_calls_under_way_go_on(
    valkey: Valkey,
    ours: Authority,
    foreign: Authority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    mine, server = (Certificate(tmp_path / f"{n}.pem", tmp_path / f"{n}.key") for n in ("me", "it"))
    ca = tmp_path / "ca.pem"

    def renew(authority: Authority) -> None:
        shutil.copy(authority.root.cert, ca)
        install(authority.signs("it"), server)
        install(authority.signs("me"), mine)

    renew(ours)
    settings = {"HEADSTART_TLS_CLIENT_CA": str(ca)}
    async with (
        tls_api(valkey, server, **settings) as (_, address),
        proxy(int(address.rpartition(":")[2])) as between,
    ):
        seen_as = f"localhost:{between.port}"
        tls = Tls(ca=ca, cert=mine.cert, key=mine.key)
        facade = EagerPrecompute(seen_as, tls=tls)

        async def facade_works() -> bool:
            return await asyncio.to_thread(facade.get_status, "held") == "pending"

        async def shows_another() -> bool:
            return await asyncio.to_thread(shown_by, address) != before

        async with PrecomputeClient(seen_as, tls=tls, timeout=30) as client:
            await client.start("held", "probe", {"directory": str(tmp_path)})
            waiting = asyncio.create_task(client.get_results("held", wait=30))
            await asyncio.sleep(0)
            await client.get_stats()  # behind the wait, on the same connection
            await wait_until(facade_works)
            assert len(between.links) == 2
            before = await asyncio.to_thread(shown_by, address)
            old = set(between.links)
            renew(foreign)
            await wait_until(shows_another)

            async def both_have_connected_again() -> bool:
                await client.get_stats()
                works = await facade_works()
                return works and len(set(between.links) - old) == 2  # files are read once a second

            await wait_until(both_have_connected_again)
            await wait_until(lambda: len(between.links) == 3)  # the wait goes on on the old one
            # Half a renewal: what was read before goes on.
            shutil.copy(ours.signs("half").cert, mine.cert)

            async def both_have_noticed() -> bool:
                await client.get_stats()
                works = await facade_works()
                return works and caplog.text.count("keeps its TLS files") == 2

            await wait_until(both_have_noticed)
            assert not waiting.done()
            await client.cancel("held")
            assert (await waiting).status == "cancelled"
            await wait_until(lambda: len(between.links) == 2)
        facade.close()
    told = [r.getMessage() for r in caplog.records if "keeps its TLS files" in r.getMessage()]
    assert len(told) == 2, "one for each of the two connections"
    assert all(str(mine.cert) in each and "KEY_VALUES_MISMATCH" in each for each in told)


async def test_the_commands_and_the_facade_find_their_files_in_the_environment(
    valkey: Valkey,
    ours: Authority,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    mine = ours.signs("operator")
    server = ours.signs("server")
    settings = {"HEADSTART_TLS_CLIENT_CA": str(ours.root.cert)}
    async with tls_api(valkey, server, **settings) as (_, address):
        files = {
            "HEADSTART_CA": str(ours.root.cert),
            "HEADSTART_CLIENT_CERT": str(mine.cert),
            "HEADSTART_CLIENT_KEY": str(mine.key),
        }
        environment = {"HEADSTART_ADDRESS": address, **files}
        code, said = await run("stats", "--json", **environment)
        assert (code, '"total_cached": 0' in said) == (0, True), said
        options = ["--ca", files["HEADSTART_CA"], "--client-cert", str(mine.cert)]
        options += ["--client-key", str(mine.key), "--address", address]
        assert (await run("stats", *options))[0] == 0
        assert (await run("stats", "--address", address))[0] == 4

        port = ("--grpc-port", address.rpartition(":")[2])
        assert (await run("healthcheck", *port, **files))[0] == 0
        own = {"HEADSTART_TLS_CERT": str(server.cert), "HEADSTART_TLS_KEY": str(server.key)}
        client = {name: path for name, path in files.items() if name != "HEADSTART_CA"}
        code, said = await run("healthcheck", *port, **own, **client)
        assert code == 0, f"it knows its own server's certificate: {said}"
        assert (await run("healthcheck", *port))[0] == 1

        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        facade = EagerPrecompute()
        with caplog.at_level(logging.WARNING, "headstart"):
            assert facade.get_status("no-such-game") is None
            assert await facade.get_precomputed_results("no-such-game") is None
            assert caplog.records == [], "an unknown game is no outage"
            facade.close()
            monkeypatch.setenv("HEADSTART_CA", "/no/such/file")
            facade = EagerPrecompute()
            assert facade.get_status("game") is None
            assert await facade.get_precomputed_results("game") is None
            assert [r.getMessage().count("/no/such/file") for r in caplog.records] == [1]
            facade.close()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"HEADSTART_TLS_KEY": ""}, "HEADSTART_TLS_KEY: must be set too"),
        ({"HEADSTART_TLS_CERT": ""}, "HEADSTART_TLS_CERT: must be set too"),
        ({"HEADSTART_TLS_KEY": "/no/such"}, "HEADSTART_TLS_KEY: cannot read /no/such"),
        ({"HEADSTART_TLS_KEY": "{other}"}, "are no certificate and its unencrypted key"),
        ({"HEADSTART_TLS_CLIENT_CA": "{key}"}, "HEADSTART_TLS_CLIENT_CA: {key} holds no"),
    ],
)
def test_files_that_do_not_fit_stop_the_start_with_one_message(
    ours: Authority, change: dict[str, str], told: str
):
    server = ours.signs("server")
    names = {"other": str(ours.root.key), "key": str(server.key)}
    files = {"HEADSTART_TLS_CERT": str(server.cert), "HEADSTART_TLS_KEY": str(server.key)}
    settings = files | {name: value.format(**names) for name, value in change.items()}
    for command in ("serve", "check-config"):
        code, said = run_here(command, **settings)
        assert code == 2
        assert said.startswith("headstart: HEADSTART_TLS_")
        assert told.format(**names) in said
        assert said.count("\n") == 1
        assert "Traceback" not in said


@pytest.mark.promise("Nothing is exposed by accident", "loopback only without TLS")
async def test_without_tls_nothing_listens_off_this_machine_unless_it_is_said(valkey: Valkey):
    open_to_all = {"HEADSTART_HOST": "0.0.0.0", "HEADSTART_REDIS_URL": valkey.url}
    for command in (["serve", "--no-worker"], ["check-config"]):
        code, said = run_here(*command, **open_to_all, **LIGHT)
        assert code == 2
        assert said.startswith("headstart: HEADSTART_TLS_CERT: without TLS every call")
        assert "HEADSTART_INSECURE=true" in said
    loopback = ("127.0.0.1", "127.0.0.2", "localhost", "::1")
    for host in loopback:
        assert run_here("check-config", HEADSTART_HOST=host)[0] == 0
    async with api(valkey.url, **LIGHT, HEADSTART_HOST="0.0.0.0", HEADSTART_INSECURE="true") as (
        process,
        _,
    ):
        assert (
            "WARNING headstart_service.processes.exposure: HEADSTART_INSECURE: without TLS"
            in process.output
        )


async def test_with_tls_a_server_may_listen_everywhere(valkey: Valkey, ours: Authority):
    async with tls_api(valkey, ours.signs("server"), HEADSTART_HOST="0.0.0.0") as (_, address):
        assert await connects(address, Tls(ca=ours.root.cert))


async def test_half_a_client_certificate_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="go together"):
        Tls(cert="me.pem")
    async with headstart("stats", "--client-cert", "me.pem") as process:
        assert await process.ended() == 2
        assert "go together" in process.output


def test_a_client_with_credentials_of_its_own_ignores_the_environment(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("HEADSTART_CA", "/no/such/file")
    given = grpc.ssl_channel_credentials()
    made = endpoint(None, channel_credentials=given)
    assert (made.credentials, made.tls) == (given, None)
    assert os.environ["HEADSTART_CA"]
