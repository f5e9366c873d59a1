"""Calls and watches of Node, and of the game's page, across the ages of their connections."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from tests.languages.tools import node
from tests.support.processes import ROOT, clean_environment, stub
from tests.support.replicas import Replicas
from tests.support.requests import probe

pytestmark = [
    pytest.mark.languages,
    pytest.mark.usefixtures("node_packages"),
    pytest.mark.asyncio(loop_scope="module"),
]

SECONDS = 6.0


async def test_no_call_fails_and_watches_resume_without_a_double(
    replicas: Replicas, tmp_path: Path
):
    server = await replicas.add(HEADSTART_MAX_CONNECTION_AGE="0.5")
    port = (await server.process.says(r"HTTP on \S+:(\d+)"))[1]
    async with stub(server.address) as service:
        await service.StartPrecompute(probe("aged", tmp_path))
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(node(), str(ROOT / "tests" / "languages" / "node" / "ages.mjs")),
        *(server.address, f"http://127.0.0.1:{port}", "aged", str(SECONDS)),
        env=clean_environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    for _ in range(2):
        assert await process.stdout.readline() == b"watching\n"
    with pytest.raises(TimeoutError):  # a watch that ends early would end the script
        await asyncio.wait_for(process.wait(), SECONDS + 1 - (time.monotonic() - began))
    (tmp_path / "go").touch()
    found = json.loads(await process.stdout.read())
    assert await process.wait() == 0
    server.process.kill()
    assert found["failures"] == []
    assert found["answers"] > 200
    for states in (found["node"], found["page"]):
        assert "COMPLETED" in states[-1]
        assert len(states) == len(set(states)), states
