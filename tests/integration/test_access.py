"""Tokens, reflection and the HTTP port of real processes."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headstart import EagerPrecompute, PermissionDenied, PrecomputeClient, Unauthenticated
from tests.support.commands import run_here
from tests.support.pipelines import REFERENCES
from tests.support.processes import ROOT, SERVICE, Process, api, run_headstart, worker
from tests.support.reflection import services
from tests.support.tokens import tokens_of
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}


async def run(*command: str, **environment: str) -> tuple[int, str]:
    """A command's exit code, and all that it said."""
    if command[0] != "serve":
        return await asyncio.to_thread(run_here, *command, **environment)
    process = run_headstart(*command, **environment)
    try:
        return await process.ended(60), process.output
    finally:
        process.stop()


@pytest.mark.promise("Tokens change without restart", "checked every second")
async def test_tokens_are_obeyed_and_change_without_a_restart(valkey: Valkey, tmp_path: Path):
    first = tokens_of(shop=("shop", "read,write"), spare=("shop", "read"))
    path = first.written(tmp_path / "tokens")
    async with api(valkey.url, HEADSTART_TOKENS=str(path), **LIGHT) as (process, address):
        token = first.by_name["shop"]
        async with PrecomputeClient(address, namespace="shop", token=token) as shop:
            await shop.start("k", "noop", {})
            with pytest.raises(PermissionDenied, match="lacks read in 'default'"):
                await shop.get_status("k", namespace="default")
            path.write_text("shop hst_s3cret\n")
            await process.says("the tokens that were read before stay in force: .* line 1")
            await shop.get_status("k")

            second = tokens_of(other=("shop", "read"))
            second.written(path)

            async def withdrawn() -> bool:
                try:
                    await shop.get_status("k")
                except Unauthenticated:
                    return True
                return False

            await wait_until(withdrawn)
        async with PrecomputeClient(address, token=second.by_name["other"]) as other:
            assert (await other.get_status("k", namespace="shop")).key == "k"
        for secret in (*first.by_name.values(), *second.by_name.values(), "s3cret"):
            assert secret not in process.output


async def test_a_made_token_lets_commands_and_the_facade_in_through_the_environment(
    valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    code, said = await run("token", "shop", "--namespaces", "default", "--verbs", "read", "--json")
    assert code == 0
    made = json.loads(said)
    path, secret = tmp_path / "tokens", tmp_path / "secret"
    path.write_text(made["line"] + "\n")
    secret.write_text(made["token"] + "\n")
    async with api(valkey.url, HEADSTART_TOKENS=str(path), **LIGHT) as (_, address):
        command = ("get", "no-such-key", "--address", address)
        not_found, refused = 3, 5
        assert (await run(*command, HEADSTART_TOKEN=made["token"]))[0] == not_found
        assert (await run(*command, HEADSTART_TOKEN_FILE=str(secret)))[0] == not_found
        code, said = await run(*command)
        assert (code, "set HEADSTART_TOKEN, or HEADSTART_TOKEN_FILE" in said) == (refused, True)
        assert (await run("healthcheck", "--grpc-port", address.rpartition(":")[2]))[0] == 0
        monkeypatch.setenv("HEADSTART_ADDRESS", address)
        monkeypatch.setenv("HEADSTART_TOKEN_FILE", str(secret))
        facade = EagerPrecompute(namespace="default")
        assert facade.get_stats()["total_cached"] == 0
        assert await facade.get_precomputed_results("no-such-key") is None
        facade.close()
    assert run_here("token", "a b")[0] == 2
    code, said = run_here("token", "ok", "--verbs", "all")
    assert (code, "`headstart token NAME --verbs sign` makes" in said) == (2, True)
    code, said = run_here("token", "signer", "--verbs", "sign")
    assert (code, "This line is a secret" in said) == (0, True)


def test_a_wrong_token_file_stops_the_start_with_one_message(tmp_path: Path):
    path = tmp_path / "tokens"
    path.write_text("# tokens\nshop hst_s3cret * read\n")
    wanted = f"headstart: HEADSTART_TOKENS: {path} line 2: the digest must be"
    for command in ("serve", "check-config"):
        code, said = run_here(command, HEADSTART_TOKENS=str(path))
        assert code == 2
        assert said.startswith(wanted)
        assert said.count("\n") == 1
        code, said = run_here(command, HEADSTART_TOKENS="hst_s3cret")
        assert code == 2
        assert "must be the file of tokens, not a token" in said
        assert "s3cret" not in said
    code, said = run_here("check-config", HEADSTART_TOKENS=str(tmp_path / "none"))
    assert (code, "cannot read" in said) == (2, True)


@pytest.mark.promise("Tokens are not sent unencrypted by accident", "loopback only without TLS")
async def test_tokens_without_tls_are_refused_off_this_machine(tmp_path: Path):
    path = tokens_of(shop=("*", "read")).written(tmp_path / "tokens")
    code, said = await run("serve", HEADSTART_TOKENS=str(path), HEADSTART_HOST="0.0.0.0")
    assert code == 2
    assert "and the tokens of HEADSTART_TOKENS," in said


@pytest.mark.promise("Reflection can be disabled", "`HEADSTART_REFLECTION=false`")
async def test_reflection_can_be_turned_off_and_health_stays(valkey: Valkey):
    async with api(valkey.url, HEADSTART_REFLECTION="false", **LIGHT) as (_, address):
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await services(channel)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
            health = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=10)).status == 1


def fetched(base: str, path: str, method: str = "GET") -> tuple[str, int, str]:
    """What was asked for, the status and the body of the answer."""
    request = urllib.request.Request(f"{base}/{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return f"{method} {path}", answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return f"{method} {path}", error.code, error.read().decode()


@pytest.mark.promise("Without a token HTTP reveals no run", "the page is empty without data")
async def test_the_http_port_reports_that_it_lives_and_is_ready_and_nothing_else(
    valkey: Valkey, tmp_path: Path
):
    tokens = tokens_of(shop=("*", "read,write"))
    path = tokens.written(tmp_path / "tokens")
    async with api(valkey.url, HEADSTART_TOKENS=str(path), **LIGHT) as (process, address):
        async with PrecomputeClient(address, token=tokens.by_name["shop"]) as client:
            await client.start("secret-key", "noop", {})
        answers = await _everything(process)
        async with worker(valkey.url, HEADSTART_TOKENS=str(path), **LIGHT) as computing:
            answers += await _everything(computing)
    page = ROOT / "service" / "headstart_service" / "dashboard" / "static" / "index.html"
    calls = ROOT / "service" / "headstart_service" / "http" / "connect" / "openapi.json"
    told = {answer for answer in answers if answer[1] == 200}
    for name, path in (("", page), ("openapi.json", calls)):  # the same for every caller
        public = (f"GET {name}", 200, path.read_text())
        assert public in told
        told.remove(public)
        answers = [answer for answer in answers if answer != public]
    assert told == {("GET livez", 200, "ok\n"), ("GET readyz", 200, "ready\n")}
    assert {code for _, code, _ in answers} == {200, 400, 401, 404, 405}
    assert {asked for asked, code, _ in answers if code == 401} == {
        "GET metrics",
        "GET api/events",
        "GET api/events?namespace=default",
        "GET api/run?namespace=default&key=secret-key",
        f"GET {STATUS}",
    }
    assert not any("secret-key" in text or "default" in text for _, _, text in answers)


STATUS = f"{SERVICE}/GetStatus?encoding=json&message=%7B%22key%22%3A%22secret-key%22%7D"


async def _everything(process: Process) -> list[tuple[str, int, str]]:
    told = await process.says(r"HTTP on (\S+)")
    base = f"http://{told[1]}"
    paths = (
        "livez",
        "readyz",
        "",
        "metrics",
        "stats",
        "debug",
        "docs",
        "openapi.json",
        STATUS,
        "../livez/",
        "static/server.py",
        "static/..%2Fserver.py",
        "api/events",
        "api/events?namespace=default",
        "api/run?namespace=default&key=secret-key",
    )
    got = [await asyncio.to_thread(fetched, base, path) for path in paths]
    posted = [
        await asyncio.to_thread(fetched, base, path, "POST") for path in ("livez", "api/cancel")
    ]
    return [*got, *posted]
