"""Calls over HTTP by the command that every reader has."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.support.processes import SERVICE, Process


async def curl(process: Process, path: str, *arguments: str) -> str:
    """What curl prints for a path of a server's HTTP port."""
    port = (await process.says(r"HTTP on \S+:(\d+)"))[1]
    command = ("curl", "--silent", "--max-time", "30", *arguments)
    run = await asyncio.create_subprocess_exec(
        *command, f"http://localhost:{port}/{path}", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await run.communicate()
    return out.decode(errors="replace")


async def called(process: Process, method: str, body: dict[str, Any], *arguments: str) -> Any:
    """The answer of a method to a body, sent as `curl -d` sends it."""
    return json.loads(
        await curl(process, f"{SERVICE}/{method}", "-d", json.dumps(body), *arguments)
    )
