"""The API over HTTP on a real server: plain curl, tokens, and the same run seen over gRPC."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shutil
import ssl
from pathlib import Path
from typing import Any

from headstart import PrecomputeClient
from tests.support.certificates import Certificate, authority, signed
from tests.support.otlp import Collector, Span, collecting
from tests.support.pipelines import REFERENCES
from tests.support.processes import Process, api, serving
from tests.support.tokens import tokens_of
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}
SERVICE = "headstart.v1.PrecomputeService"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TOKENS = tokens_of(reader=("shop", "read"))


async def curl(process: Process, method: str, *arguments: str) -> str:
    """What curl prints for a call of this method."""
    port = (await process.says(r"HTTP on \S+:(\d+)"))[1]
    url = f"http://localhost:{port}/{SERVICE}/{method}"
    command = ("curl", "--silent", "--max-time", "30", *arguments, url)
    run = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await run.communicate()
    return out.decode(errors="replace")


async def told(process: Process, method: str, body: dict[str, Any], *arguments: str) -> Any:
    return json.loads(await curl(process, method, "-d", json.dumps(body), *arguments))


async def test_curl_starts_reads_and_watches_a_run(tmp_path):
    async with serving(**LIGHT, HEADSTART_DATA_DIR=str(tmp_path)) as (process, address):
        missing = json.loads(await curl(process, "GetResults", "-d", '{"key":"game-1"}'))
        assert missing["code"] == "not_found"
        spec = {"pipeline": "noop", "inputs": {}}
        started = await told(process, "StartPrecompute", {"key": "game-1", "custom": spec})
        assert started["outcome"] == "START_OUTCOME_STARTED"
        results = await told(process, "GetResults", {"key": "game-1", "wait": "20s"})
        assert results["status"] == "PRECOMPUTE_STATUS_COMPLETED"
        async with PrecomputeClient(address) as client:
            seen = await client.get_results("game-1")
        assert (results["pipeline"], int(results["revision"])) == (seen.pipeline, seen.revision)
        query = "?connect=v1&encoding=json&message=%7B%22key%22%3A%22game-1%22%7D"
        assert json.loads(await curl(process, f"GetStatus{query}"))["key"] == "game-1"
        body = tmp_path / "watch"
        body.write_bytes(b'\0\0\0\0\x10{"key":"game-1"}')
        kind = ("-H", "content-type: application/connect+json")
        watched = await curl(process, "WatchResults", *kind, "--data-binary", f"@{body}")
        assert watched.endswith("\x02\0\0\0\x02{}")
        bad = await told(process, "GetResults", {"keys": "game-1"})
        assert bad["details"][0]["debug"]["fieldViolations"][0]["field"] == "keys"
        port = (await process.says(r"HTTP on \S+:(\d+)"))[1]
        metrics = await asyncio.create_subprocess_exec(
            *("curl", "-s", f"localhost:{port}/metrics"), stdout=asyncio.subprocess.PIPE
        )
        text = (await metrics.communicate())[0].decode()
        for method, code in (("WatchResults", "OK"), ("GetResults", "NOT_FOUND")):
            counted = f'headstart_requests_total{{code="{code}",method="{method}"}} 1.0'
            assert counted in text


async def test_calls_with_tokens_are_traced_as_their_callers_children(valkey: Valkey, tmp_path):
    tokens = TOKENS.written(tmp_path / "tokens")
    trace = f"-Htraceparent: 00-{TRACE}-{PARENT}-01"
    with collecting() as collector:
        settings = LIGHT | {
            "HEADSTART_TOKENS": str(tokens),
            "HEADSTART_TRACING": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        async with api(valkey.url, **settings) as (process, _):
            body = {"namespace": "shop", "key": "k"}
            refused = await told(process, "GetResults", body, trace)
            assert refused["code"] == "unauthenticated"
            bearer = f"-Hauthorization: Bearer {TOKENS.by_name['reader']}"
            answer = await told(process, "GetResults", body, trace, bearer)
            assert answer["code"] == "not_found"
            answer = await told(process, "CancelPrecompute", body, bearer)
            assert answer["code"] == "permission_denied"
            assert re.search("lacks write in 'shop'", answer["message"])

            def traced() -> bool:
                codes = ("unauthenticated", "not_found", "permission_denied")
                return all(coded(collector, code) for code in codes)

            await wait_until(traced)
    [found] = coded(collector, "not_found")
    assert (found.trace, found.parent) == (TRACE, PARENT)
    assert found.attributes["headstart.key"] == "k"
    assert found.attributes["rpc.system.name"] == "connectrpc"


async def test_calls_have_a_port_of_their_own_with_tls(valkey: Valkey, tmp_path: Path):
    root = authority(tmp_path, "ours")
    pair = signed(root, tmp_path, "server")
    files = {"HEADSTART_TLS_CERT": str(pair.cert), "HEADSTART_TLS_KEY": str(pair.key)}
    ports = {"HEADSTART_CONNECT_PORT": "0", "HEADSTART_HTTP_TLS": "true"}
    async with api(valkey.url, **files, **ports, **LIGHT) as (process, _):
        own = int((await process.says(r"API over HTTP on \S+:(\d+)"))[1])
        shared = int((await process.says(r", HTTP on \S+:(\d+)"))[1])
        body = b'{"key":"k"}'
        found = await asked(own, root, f"/{SERVICE}/GetStatus", body)
        assert json.loads(found)["code"] == "not_found"
        assert await asked(shared, root, "/livez") == b"ok\n"
        assert await asked(shared, root, f"/{SERVICE}/GetStatus", body) == b"Not Found"
        assert await curl(process, "GetStatus", "-d", "{}") == ""  # no TLS, no answer
        before = await served_certificate(own)
        renewed = signed(root, tmp_path, "renewed")
        shutil.copy(renewed.key, pair.key)
        shutil.copy(renewed.cert, pair.cert)
        await process.says("new certificate read")
        assert await served_certificate(own) != before
        assert json.loads(await asked(own, root, f"/{SERVICE}/GetStatus", body))


async def asked(port: int, root: Certificate, path: str, body: bytes | None = None) -> bytes:
    """What the port answers over TLS, to a caller that trusts this authority."""

    def ask() -> bytes:
        trust = ssl.create_default_context(cafile=root.cert)
        connection = http.client.HTTPSConnection("localhost", port, context=trust, timeout=20)
        kind = {"content-type": "application/json"} if body else {}
        connection.request("POST" if body else "GET", path, body, kind)
        answer = connection.getresponse().read()
        connection.close()
        return answer

    return await asyncio.to_thread(ask)


async def served_certificate(port: int) -> str:
    return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))


def coded(collector: Collector, code: str) -> list[Span]:
    spans = list(collector.spans)
    return [span for span in spans if span.attributes.get("rpc.response.status_code") == code]
