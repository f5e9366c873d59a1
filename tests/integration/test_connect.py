"""The API over HTTP on a port of its own, as an operator opens it to a network."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.certificates import Certificate, authority, signed
from tests.support.curl import curl
from tests.support.otlp import Collector, Span, collecting
from tests.support.pipelines import REFERENCES
from tests.support.processes import SERVICE, api
from tests.support.tokens import tokens_of
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TOKENS = tokens_of(reader=("shop", "read"))


@pytest.mark.promise(
    "HTTP calls are encrypted with the same certificate, renewed alike",
    "`HEADSTART_CONNECT_PORT`, `HEADSTART_HTTP_TLS`",
)
async def test_calls_on_a_port_of_their_own_have_tls_tokens_and_traces(
    valkey: Valkey, tmp_path: Path
):
    root = authority(tmp_path, "ours")
    pair = signed(root, tmp_path, "server")
    with collecting() as collector:
        settings = {
            "HEADSTART_TLS_CERT": str(pair.cert),
            "HEADSTART_TLS_KEY": str(pair.key),
            "HEADSTART_CONNECT_PORT": "0",
            "HEADSTART_HTTP_TLS": "true",
            "HEADSTART_TOKENS": str(TOKENS.written(tmp_path / "tokens")),
            "HEADSTART_TRACING": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        async with api(valkey.url, **settings, **LIGHT) as (process, _):
            port = int((await process.says(r"API over HTTP on \S+:(\d+)"))[1])
            shared = int((await process.says(r", HTTP on \S+:(\d+)"))[1])
            assert await asked(shared, root, "/livez") == b"ok\n"
            assert await asked(shared, root, f"/{SERVICE}/GetStatus", b"{}") == b"Not Found"
            assert await curl(process, "livez") == "", "without TLS there is no answer"

            await refused_calls_are_traced(port, root, collector)

            before = await served_certificate(port)
            renewed = signed(root, tmp_path, "renewed")
            shutil.copy(renewed.key, pair.key)
            shutil.copy(renewed.cert, pair.cert)
            await process.says("new certificate read")
            assert await served_certificate(port) != before
            assert await asked(port, root, "/livez") == b"ok\n"


async def refused_calls_are_traced(port: int, root: Certificate, collector: Collector) -> None:
    bearer = {"authorization": f"Bearer {TOKENS.by_name['reader']}"}
    trace = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    for method, headers, code in (
        ("GetResults", trace, "unauthenticated"),
        ("GetResults", trace | bearer, "not_found"),
        ("CancelPrecompute", trace | bearer, "permission_denied"),
    ):
        body = b'{"namespace":"shop","key":"k"}'
        answer = json.loads(await asked(port, root, f"/{SERVICE}/{method}", body, headers))
        assert answer["code"] == code
        await wait_until(lambda: coded(collector, code))  # noqa: B023
    [found] = coded(collector, "not_found")
    assert (found.trace, found.parent) == (TRACE, PARENT)
    assert found.attributes["headstart.key"] == "k"
    assert found.attributes["rpc.system.name"] == "connectrpc"


async def asked(
    port: int,
    root: Certificate,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """What the port answers over TLS, to a caller that trusts this authority."""

    def ask() -> bytes:
        trust = ssl.create_default_context(cafile=root.cert)
        connection = http.client.HTTPSConnection("localhost", port, context=trust, timeout=20)
        kind = {"content-type": "application/json"} if body else {}
        connection.request("POST" if body else "GET", path, body, {**kind, **(headers or {})})
        answer = connection.getresponse().read()
        connection.close()
        return answer

    return await asyncio.to_thread(ask)


async def served_certificate(port: int) -> str:
    return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))


def coded(collector: Collector, code: str) -> list[Span]:
    spans = list(collector.spans)
    return [span for span in spans if span.attributes.get("rpc.response.status_code") == code]
