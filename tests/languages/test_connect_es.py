"""The official Connect client for Node against real servers, with JSON and with protobuf."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.languages.tools import connect_clients, node
from tests.support.processes import clean_environment
from tests.support.replicas import Replicas
from tests.support.tokens import tokens_of

pytestmark = [pytest.mark.languages, pytest.mark.asyncio(loop_scope="module")]

TOKENS = tokens_of(shop=("default", "read,write"), reader=("default", "read"))


@pytest.fixture(scope="module")
def clients() -> Path:
    return connect_clients()


async def played(directory: Path, *arguments: str) -> list[dict[str, Any]]:
    """What client.mjs prints."""
    done = await asyncio.to_thread(
        subprocess.run,
        [node(), str(directory / "client.mjs"), *arguments],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def error(code: str, *fields: str) -> dict[str, Any]:
    return {"code": code, "violations": list(fields), "reasons": []}


@pytest.mark.parametrize("form", ["json", "proto"])
async def test_every_kind_of_call_works(
    replicas: Replicas, clients: Path, tmp_path: Path, form: str
):
    tokens = TOKENS.written(tmp_path / "tokens")
    replica = await replicas.add(HEADSTART_TOKENS=str(tokens))
    port = (await replica.process.says(r"HTTP on \S+:(\d+)"))[1]
    url = f"http://127.0.0.1:{port}"
    said = await played(clients, url, form, TOKENS.by_name["shop"], str(tmp_path))
    assert said == [
        {"started": "STARTED", "revision": 1},
        {"watched": "COMPLETED"},
        {"got": "COMPLETED", "steps": ["one", "three", "two"]},
        error("NotFound"),
        error("InvalidArgument", "key"),
        error("InvalidArgument", "custom.inputs.value"),
        error("DeadlineExceeded"),
        error("Canceled"),
    ]
    replica.process.kill()
