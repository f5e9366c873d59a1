"""Authors' pipelines on a real server and worker: types there and back, and steps that misbehave."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio

from headstart import InvalidRequest, PrecomputeClient
from headstart.v1 import precompute_pb2 as pb
from tests.support.commands import run
from tests.support.processes import Process, serving, stub
from tests.support.typed_pipelines import REFERENCES, Count
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

LIMIT = 100_000


@pytest_asyncio.fixture
async def served_at(valkey: Valkey) -> AsyncIterator[tuple[Process, str]]:
    """A server and its address."""
    light = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}
    limits = {"HEADSTART_MAX_ARTIFACT_BYTES": str(LIMIT), "HEADSTART_REDIS_URL": valkey.url}
    async with serving(**light, **limits) as found:
        yield found


@pytest.fixture
def grpc_address(served_at: tuple[Process, str]) -> str:
    return served_at[1]


@pytest_asyncio.fixture
async def served(served_at: tuple[Process, str]) -> AsyncIterator[tuple[PrecomputeClient, str]]:
    """A client, and the address of the live page."""
    process, address = served_at
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


async def test_inputs_are_validated_and_pipelines_show_their_types(served) -> None:
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


async def test_whole_numbers_beyond_doubles_are_exact_from_every_caller(
    served, grpc_address
) -> None:
    client, _ = served
    one, other = 2**53, 2**53 + 1
    assert float(one) == float(other)
    more = [-(2**53) - 1, 2**63, 10**30, 3, 3.0, 1e300, {"deep": [None, True, "é🌊"]}]

    async def by_client(key: str, number: int) -> None:
        await client.start(key, "ids", {"id": number, "more": more})

    async def by_text(key: str, number: int) -> None:
        spec = pb.CustomSpec(pipeline="ids", inputs_json=json.dumps({"id": number, "more": more}))
        async with stub(grpc_address) as service:
            await service.StartPrecompute(
                pb.StartPrecomputeRequest(key=key, custom=spec), timeout=10
            )

    async def by_command(key: str, number: int) -> None:
        inputs = json.dumps({"id": number, "more": more})
        words = ("start", key, "--pipeline", "ids", "--inputs", inputs, "--address", grpc_address)
        done = await asyncio.to_thread(run, *words)
        assert done.code == 0, done.err

    for start in (by_client, by_text, by_command):
        for revision, number in enumerate((one, other), 1):
            await start(start.__name__, number)
            results = await client.get_results(start.__name__, wait=20)
            # Neither the key's own steps nor memos of the other number are taken for it.
            assert results.revision == revision
            assert results.artifact("written") == f"{number} {more}"
            assert results.artifact("given") == {"id": number, "more": more}
            kinds = [type(each) for each in results.artifact("given")["more"]]
            assert kinds == [int, int, int, int, float, float, dict]
        assert (
            await client.start(start.__name__, "ids", {"id": other, "more": more})
        ).outcome == "reused"


async def test_a_struct_refuses_whole_numbers_that_it_cannot_tell_apart(
    served, grpc_address
) -> None:
    spec = pb.CustomSpec(pipeline="ids")
    spec.inputs.update({"id": 2**53 + 1, "more": [1, {"a.b": -1e300}, 2**53 - 1]})
    async with stub(grpc_address) as service:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.StartPrecompute(
                pb.StartPrecomputeRequest(key="k", custom=spec), timeout=10
            )
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for told in ("custom.inputs.id: ", "custom.inputs.more.1.a.b: ", "inputs_json"):
        assert told in (refused.value.details() or "")
