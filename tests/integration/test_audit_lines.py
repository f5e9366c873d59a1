"""The log of writes and refusals, and what both ports bound, on real servers."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart.v1 import precompute_pb2_grpc as pb_grpc
from headstart_service.auth.token_file import new_key_line
from tests.support.certificates import authority, signed
from tests.support.processes import SERVICE, Process, api
from tests.support.replicas import LIGHT
from tests.support.tokens import Tokens, tokens_of
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

TOKENS = tokens_of(shop=("shop", "read,write"), reader=("shop", "read"))
JSON = {"HEADSTART_LOG_FORMAT": "json"}
Line = dict[str, Any]
Call = Callable[..., Awaitable[str]]
"""Calls a method with a request and the name of a token; gives the code's name."""


@dataclass
class Server:
    """A server with tokens, and calls to it over both transports."""

    process: Process
    calls: dict[str, Call]

    def lines(self, *events: str) -> list[Line]:
        """The lines of the log with these events."""
        found = [json.loads(line) for line in self.process.output.splitlines() if line[:1] == "{"]
        return [line for line in found if line.get("event") in events]


@asynccontextmanager
async def audited(
    valkey: Valkey, directory: Path, *, tls: bool = False, **settings: str
) -> AsyncIterator[Server]:
    """An API process; with `tls` both its ports speak it."""
    text = f"{TOKENS.text}{new_key_line('signer')}\n"
    tokens = Tokens(TOKENS.by_name, text).written(directory / "tokens")
    environment = LIGHT | JSON | {"HEADSTART_TOKENS": str(tokens)} | settings
    trust: Path | None = None
    if tls:
        root = authority(directory, "ours")
        pair = signed(root, directory, "server")
        trust = root.cert
        files = {"HEADSTART_TLS_CERT": str(pair.cert), "HEADSTART_TLS_KEY": str(pair.key)}
        environment |= files | {"HEADSTART_HTTP_TLS": "true"}
    async with api(valkey.url, **environment) as (process, address):
        port = (await process.says(r"HTTP on \S+:(\d+)"))[1]
        target = f"localhost:{address.rpartition(':')[2]}"
        channel = (
            grpc.aio.insecure_channel(target)
            if trust is None
            else grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(trust.read_bytes()))
        )
        verify = True if trust is None else ssl.create_default_context(cafile=str(trust))
        base = f"http{'s' if trust else ''}://localhost:{port}"
        async with channel, httpx2.AsyncClient(base_url=base, verify=verify, timeout=20) as http:
            stub: Any = pb_grpc.PrecomputeServiceStub(channel)

            async def over_grpc(method: str, request: Any, token: str | None = "shop") -> str:
                try:
                    await getattr(stub, method)(request, metadata=TOKENS.metadata(token))
                except grpc.aio.AioRpcError as error:
                    return error.code().name
                return "OK"

            async def over_http(method: str, request: Any, token: str | None = "shop") -> str:
                response = await http.post(
                    f"/{SERVICE}/{method}",
                    content=request.SerializeToString(),
                    headers={"content-type": "application/proto", **dict(TOKENS.metadata(token))},
                )
                return "OK" if response.status_code == 200 else response.json()["code"].upper()

            yield Server(process, {"gRPC": over_grpc, "HTTP": over_http})


def start(key: str, namespace: str = "shop") -> pb.StartPrecomputeRequest:
    spec = pb.CustomSpec(pipeline="noop", inputs_json="{}")
    return pb.StartPrecomputeRequest(namespace=namespace, key=key, custom=spec)


@pytest.mark.parametrize("transport", ["gRPC", "HTTP"])
async def test_every_write_is_one_line_with_its_tokens_name(
    valkey: Valkey, tmp_path: Path, transport: str
):
    async with audited(valkey, tmp_path) as server:
        call = server.calls[transport]
        about = {"namespace": "shop", "key": "k"}
        writes = [
            ("StartPrecompute", start("k"), "run.started"),
            ("TouchPrecompute", pb.TouchPrecomputeRequest(**about), "run.touched"),
            (
                "ReportStep",
                pb.ReportStepRequest(
                    **about, revision=9, step="nothing", artifact=pb.Artifact(json="1")
                ),
                "step.unchanged",
            ),
            ("CreateRunToken", pb.CreateRunTokenRequest(**about), "token.created"),
            ("CancelPrecompute", pb.CancelPrecomputeRequest(**about), "run.cancelled"),
            ("CancelPrecompute", pb.CancelPrecomputeRequest(**about), "run.unchanged"),
            ("DeletePrecompute", pb.DeletePrecomputeRequest(**about), "run.deleted"),
            ("DeletePrecompute", pb.DeletePrecomputeRequest(**about), "run.unchanged"),
        ]
        for method, request, _ in writes:
            assert await call(method, request) == "OK", method
        batch = pb.BatchStartPrecomputesRequest(
            requests=[start("a"), start("b"), start("a"), start("c", "other")]
        )
        assert await call("BatchStartPrecomputes", batch) == "OK"
        [many] = await wait_until(lambda: server.lines("batch.started"))
        lines = server.lines(*{event for *_, event in writes})
    assert [(line["method"], line["event"]) for line in lines] == [
        (method, event) for method, _, event in writes
    ]
    for line in (*lines, many):
        assert line["token"] == "shop"
        assert line["outcome"]
    assert all(about.items() <= line.items() for line in lines)
    assert (many["count"], many["outcomes"]) == (4, {"started": 2, "joined": 1, "refused": 1})


@pytest.mark.parametrize("transport", ["gRPC", "HTTP"])
async def test_every_refusal_is_a_line_with_its_reason(
    valkey: Valkey, tmp_path: Path, transport: str
):
    async with audited(valkey, tmp_path, HEADSTART_MAX_QUEUED="1") as server:
        call = server.calls[transport]
        assert await call("StartPrecompute", start("k"), None) == "UNAUTHENTICATED"
        assert await call("StartPrecompute", start("k"), "reader") == "PERMISSION_DENIED"
        assert await call("StartPrecompute", start("k", "other")) == "PERMISSION_DENIED"
        assert await call("StartPrecompute", start("k")) == "OK"
        assert await call("StartPrecompute", start("full")) == "RESOURCE_EXHAUSTED"
        batch = pb.BatchStartPrecomputesRequest(requests=[start("x", "other")])
        assert await call("BatchStartPrecomputes", batch) == "OK"
        lines = await wait_until(lambda: (found := server.lines("call.refused"))[4:] and found)
    assert [(line["outcome"], line.get("token"), line.get("key")) for line in lines] == [
        ("UNAUTHENTICATED", None, None),
        ("PERMISSION_DENIED", "reader", "k"),
        ("PERMISSION_DENIED", "shop", "k"),
        ("RESOURCE_EXHAUSTED", "shop", "full"),
        ("PERMISSION_DENIED", "shop", "x"),
    ]
    for line in lines:
        assert line["method"] in ("StartPrecompute", "BatchStartPrecomputes")
        assert line["level"] == "warning"
    assert all("127.0.0.1" in line["peer"] or "[::1]" in line["peer"] for line in lines[:4])
    assert lines[2]["namespace"] == "other"


@pytest.mark.parametrize("transport", ["gRPC", "HTTP"])
async def test_a_flood_of_refusals_is_some_lines_and_one_for_the_others(
    valkey: Valkey, tmp_path: Path, transport: str
):
    flood = 600
    async with audited(valkey, tmp_path) as server:
        call, ready = server.calls[transport], asyncio.Semaphore(50)

        async def stranger(number: int) -> str:
            async with ready:
                method = ("GetStatus", "StartPrecompute")[number % 2]
                return await call(method, start("k"), "stranger")

        codes = await asyncio.gather(*[stranger(number) for number in range(flood)])
        assert set(codes) == {"UNAUTHENTICATED"}
        process = server.process
        process.send(15)
        await process.ended()
        each, more = server.lines("call.refused"), server.lines("calls.refused")
    assert len(each) + len(more) <= 11 * 4, "10 lines and a sum in each 10 seconds"
    assert len(each) + sum(line["count"] for line in more) == flood
    assert {method for line in more for method in line["methods"]} == {
        "GetStatus",
        "StartPrecompute",
    }


async def test_refusals_of_metrics_and_of_the_live_page_are_lines(valkey: Valkey, tmp_path: Path):
    async with audited(valkey, tmp_path) as server:
        port = (await server.process.says(r"HTTP on \S+:(\d+)"))[1]
        async with httpx2.AsyncClient(base_url=f"http://localhost:{port}") as http:
            bearer = dict(TOKENS.metadata("reader"))
            assert (await http.get("/metrics")).status_code == 401
            assert (await http.get("/metrics", headers=bearer)).status_code == 403
            assert (await http.get("/api/run?key=k")).status_code == 401
        lines = await wait_until(lambda: (found := server.lines("call.refused"))[2:] and found)
    assert [(line["method"], line.get("token")) for line in lines] == [
        ("GET /metrics", None),
        ("GET /metrics", "reader"),
        ("GET /api/run", None),
    ]


async def test_with_tls_the_http_port_has_the_limits_of_the_grpc_port(
    valkey: Valkey, tmp_path: Path
):
    async with audited(valkey, tmp_path, tls=True, HEADSTART_MAX_WAITERS="1") as server:
        for first, second in (("gRPC", "HTTP"), ("HTTP", "gRPC")):
            assert await server.calls[first]("StartPrecompute", start(first)) == "OK"
            wait = pb.GetResultsRequest(namespace="shop", key=first)
            wait.wait.FromSeconds(60)

            async def hold(call: Call = server.calls[first], request: Any = wait) -> None:
                while await call("GetResults", request) == "RESOURCE_EXHAUSTED":
                    """The other call had the place."""

            held = asyncio.create_task(hold())

            async def refused(other: str = second, request: Any = wait) -> bool:
                asked = pb.GetResultsRequest.FromString(request.SerializeToString())
                asked.wait.FromMilliseconds(1)
                return await server.calls[other]("GetResults", asked) == "RESOURCE_EXHAUSTED"

            await wait_until(refused)
            held.cancel()
            with suppress(asyncio.CancelledError):
                await held
        for transport in server.calls:
            large = start("large")
            large.custom.inputs_json = json.dumps({"x": "y" * 5_000_000})
            assert await server.calls[transport]("StartPrecompute", large) == "RESOURCE_EXHAUSTED"
            assert await server.calls[transport]("GetStats", pb.GetStatsRequest(), None) == (
                "UNAUTHENTICATED"
            )


async def test_bytes_that_are_no_tls_write_no_line(valkey: Valkey, tmp_path: Path):
    foreign = ssl.create_default_context(cafile=str(authority(tmp_path, "foreign").cert))
    async with audited(valkey, tmp_path, tls=True) as server:
        found = await server.process.says(r"gRPC on \S+?:(\d+), HTTP on \S+?:(\d+)")
        before = server.process.output
        for port in map(int, found.groups()):
            for sent in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(100), b"\x16\x03\x01\0\5hello", b""):
                for _ in range(10):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(sent)
                    if sent:
                        with suppress(TimeoutError, OSError):
                            await asyncio.wait_for(reader.read(100), 0.05)
                    writer.close()
            for _ in range(10):
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await asyncio.open_connection(
                        "127.0.0.1", port, ssl=foreign, server_hostname="localhost"
                    )
        assert await server.calls["gRPC"]("StartPrecompute", start("last")) == "OK"
        await wait_until(lambda: server.lines("run.started"))
        written = server.process.output.removeprefix(before).splitlines()
    assert len(written) == 1, written
