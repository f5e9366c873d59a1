"""Authors' pipelines on a real server and worker: types there and back, and steps that misbehave."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from headstart import InvalidRequest, PrecomputeClient
from tests.support.processes import serving
from tests.support.typed_pipelines import REFERENCES, Count
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

LIMIT = 100_000


@pytest_asyncio.fixture
async def served(valkey: Valkey) -> AsyncIterator[tuple[PrecomputeClient, str]]:
    """A client, and the address of the live page."""
    light = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}
    limits = {"HEADSTART_MAX_ARTIFACT_BYTES": str(LIMIT), "HEADSTART_REDIS_URL": valkey.url}
    async with serving(**light, **limits) as (process, address):
        page = (await process.says(r"live page on http://(\S+)/"))[1]
        async with PrecomputeClient(address) as client:
            yield client, page


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None: ...


def tick(host: str) -> dict[str, Any]:
    """The first event of the live page's stream."""
    connection = http.client.HTTPConnection(host, timeout=20)
    connection.request("GET", "/api/events")
    answer, text = connection.getresponse(), ""
    while not text.endswith("\n\n"):
        text += answer.readline().decode() or "\n\n"
    connection.close()
    told: dict[str, Any] = json.loads(text.partition("data: ")[2])
    return told


async def test_types_go_to_callers_and_misbehaving_steps_harm_nobody_else(served) -> None:
    client, page = served
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        await client.start("odd", "odd", {})
        await client.start("typed", "typed", {"text": "a bee a", "url": url})
        typed = await client.get_results("typed", wait=20)
        server.shutdown()

    assert (typed.status, typed.missing) == ("completed", ())
    assert typed.artifact("words") == ["a", "bee", "a"]
    assert typed.artifact("counts", as_type=list[Count])[0] == Count(word="a", times=2, share=2 / 3)
    lengths = typed.artifact("lengths", as_type=np.ndarray)
    assert (lengths.dtype, lengths.tolist()) == (np.int64, [[1, 3, 1]])
    summary = typed.artifact("summary")
    assert summary == {"most": "a", "letters": 5, "half": 2.0, "id": 2**60}
    assert [type(summary[name]) for name in ("letters", "half", "id")] == [int, float, int]
    assert typed.artifact("raw", as_type=bytes) == b"a bee a"
    assert typed.artifact("page", as_type=str) == "hello"

    odd = await client.get_results("odd", wait=20)
    told = {name: report.error for name, report in odd.steps.items()}
    assert odd.artifact("fine") == 1
    assert told.pop("fine") is None
    assert told.pop("raises").startswith("internal error ")  # type: ignore[union-attr]
    assert told["mistyped"] == "returned dict, not list[str]"
    assert told["endless"] == "took longer than 0.2 s"
    assert told["far_too_much"].endswith(f"HEADSTART_MAX_ARTIFACT_BYTES is {LIMIT:,}")  # type: ignore[union-attr]
    assert told["too_much"].startswith("returned at least 200,000 bytes; ")  # type: ignore[union-attr]

    async def shown() -> list[str]:
        return [each["reason"] for each in (await asyncio.to_thread(tick, page))["failures"]]

    async def all_shown() -> bool:
        reasons = " ".join(await shown())
        wanted = ("returned dict, not list[str]", "took longer than 0.2 s", "internal error <id>")
        return all(reason in reasons for reason in (*wanted, "returned <size> bytes"))

    await wait_until(all_shown)


async def test_inputs_are_validated_and_pipelines_tell_their_types(served) -> None:
    client, _ = served
    with pytest.raises(InvalidRequest) as refused:
        await client.start("bad", "typed", {"text": "", "url": 3})
    assert [v.field for v in refused.value.violations] == [
        "custom.inputs.text",
        "custom.inputs.url",
    ]
    by_name = {each.name: each for each in await client.list_pipelines()}
    types = {step.name: step.output_type for step in by_name["typed"].steps}
    assert types == {
        "words": "list[str]",
        "counts": "list[Count]",
        "lengths": "ndarray[int64]",
        "summary": "dict[str, Any]",
        "raw": "bytes",
        "page": "str",
    }
