"""The Node client against real servers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.languages.tools import NODE_EXAMPLE, node
from tests.support.certificates import authority, signed
from tests.support.processes import ROOT, clean_environment
from tests.support.replicas import Replicas, target
from tests.support.tokens import tokens_of

pytestmark = [
    pytest.mark.languages,
    pytest.mark.usefixtures("node_packages"),
    pytest.mark.asyncio(loop_scope="module"),
]


async def client(*arguments: str, **environment: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code of client.js, and what it said."""
    done = await asyncio.to_thread(
        subprocess.run,
        [node(), str(NODE_EXAMPLE / "client.js"), *arguments],
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


async def test_a_run_is_started_watched_and_read(replicas: Replicas):
    one, _ = await replicas.two()
    code, said = await client("n", "chain", '{"value": 1}', HEADSTART_ADDRESS=one.address)
    assert code == 0
    assert said[0] == {"started": "START_OUTCOME_STARTED", "revision": 1}
    watched = said[1:-1]
    assert {run["watched"] for run in watched[:-1]} <= {
        "PRECOMPUTE_STATUS_PENDING",
        "PRECOMPUTE_STATUS_IN_PROGRESS",
    }
    assert any("STEP_STATE_RUNNING" in run["steps"].values() for run in watched), "steps are seen"
    assert watched[-1]["watched"] == "PRECOMPUTE_STATUS_COMPLETED"
    assert said[-1] == {
        "got": "PRECOMPUTE_STATUS_COMPLETED",
        "values": {"one": 2, "two": 4, "three": 7},
    }


async def test_the_same_start_reuses_what_is_there(replicas: Replicas):
    one, _ = await replicas.two()
    for outcome in ("START_OUTCOME_STARTED", "START_OUTCOME_REUSED"):
        _, said = await client("again", "noop", '{"value": 5}', HEADSTART_ADDRESS=one.address)
        assert said[0] == {"started": outcome, "revision": 1}
        assert said[-1]["values"] == {"nothing": 5}


async def test_calls_to_this_machine_use_no_proxy(replicas: Replicas):
    one, _ = await replicas.two()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), url)
        where = {"HEADSTART_ADDRESS": one.address, "no_proxy": ""}
        code, said = await client("proxied", "noop", '{"value": 5}', **where, **proxies)
    assert (code, said[-1]["values"]) == (0, {"nothing": 5})


async def test_neighbours_beyond_doubles_are_two_runs(replicas: Replicas):
    one, _ = await replicas.two()
    for number, outcome in ((2**53, "STARTED"), (2**53 + 1, "REPLACED")):
        inputs = f'{{"value": {number}}}'
        _, said = await client("large", "noop", inputs, HEADSTART_ADDRESS=one.address)
        assert said[0]["started"] == f"START_OUTCOME_{outcome}"


async def test_wrong_input_names_the_field(replicas: Replicas):
    one, _ = await replicas.two()
    code, said = await client("wrong", "noop", '{"value": "x"}', HEADSTART_ADDRESS=one.address)
    assert code == 1
    (refusal,) = said
    assert refusal["refused"] == "INVALID_ARGUMENT"
    (violation,) = refusal["violations"]
    assert violation["field"] == "custom.inputs.value"
    assert "integer" in violation["description"]


async def test_a_refusal_for_lack_of_room_has_a_retry_delay(replicas: Replicas, tmp_path):
    crowded = await replicas.add(HEADSTART_MAX_QUEUED="1")
    inputs = json.dumps({"directory": str(tmp_path)})
    async with AsyncExitStack() as stack:
        process = await asyncio.create_subprocess_exec(
            *(node(), str(NODE_EXAMPLE / "client.js"), "first", "probe", inputs),
            env=clean_environment() | {"HEADSTART_ADDRESS": crowded.address},
            stdout=asyncio.subprocess.PIPE,
        )
        stack.push_async_callback(process.wait)
        stack.callback((tmp_path / "go").touch)
        assert process.stdout is not None
        assert json.loads(await process.stdout.readline())["revision"] == 1
        code, said = await client("second", "probe", inputs, HEADSTART_ADDRESS=crowded.address)
        assert code == 1
        assert said[0]["refused"] == "RESOURCE_EXHAUSTED"
        assert 0.1 <= said[0]["retryAfter"] <= 60
    crowded.process.kill()


async def test_tls_and_a_token(replicas: Replicas, tmp_path: Path):
    root = authority(tmp_path, "ours")
    server, own = signed(root, tmp_path, "server"), signed(root, tmp_path, "own")
    tokens = tokens_of(shop=("shop", "read,write"), reader=("shop", "read"))
    secured = await replicas.add(
        HEADSTART_TLS_CERT=str(server.cert),
        HEADSTART_TLS_KEY=str(server.key),
        HEADSTART_TLS_CLIENT_CA=str(root.cert),
        HEADSTART_TOKENS=str(tokens.written(tmp_path / "tokens")),
    )
    environment = {
        "HEADSTART_ADDRESS": f"localhost:{secured.port}",
        "HEADSTART_CA": str(root.cert),
        "HEADSTART_CLIENT_CERT": str(own.cert),
        "HEADSTART_CLIENT_KEY": str(own.key),
        "HEADSTART_NAMESPACE": "shop",
    }
    call = ("k", "noop", '{"value": 3}')
    code, said = await client(*call, **environment, HEADSTART_TOKEN=tokens.by_name["shop"])
    assert (code, said[-1].get("values")) == (0, {"nothing": 3}), said

    code, said = await client(*call, **environment, HEADSTART_TOKEN=tokens.by_name["reader"])
    assert (code, said[0]["refused"]) == (1, "PERMISSION_DENIED")
    assert said[0]["info"]["metadata"] == {"field": "namespace", "missing": "write"}

    code, said = await client(*call, **environment)
    assert (code, said[0]["refused"]) == (1, "UNAUTHENTICATED")
    secured.process.kill()


async def test_calls_are_spread_and_a_killed_server_fails_none(replicas: Replicas):
    lost, left = await replicas.two()
    spread = ROOT / "tests" / "languages" / "node" / "spread.js"
    process = await asyncio.create_subprocess_exec(
        *(node(), str(spread), target(lost, left), "50"),
        env=dict(os.environ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert await process.stdout.readline() == b"going\n"
    lost.process.kill()
    # What is answered from now on, others answer.
    _, said = await client("k", "noop", "{}", HEADSTART_ADDRESS=target(lost, left))
    assert said[-1]["got"] == "PRECOMPUTE_STATUS_COMPLETED"
    process.stdin.close()
    told = json.loads(await process.stdout.read())
    await process.wait()
    assert told["failures"] == []
    assert set(told["answers"]) == {str(lost.mark), str(left.mark)}
    assert told["answers"][str(left.mark)] > told["answers"][str(lost.mark)]
