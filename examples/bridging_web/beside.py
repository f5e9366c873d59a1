"""What the application needs beside itself, as processes of their own: Headstart, Haiku, the web.

Without an ANTHROPIC_API_KEY, a stand-in for Haiku serves the Messages API on this machine, for the
real SDK. It takes as long as Haiku may, and answers with words of a fixed list. Every page and
table that uses it names it a stand-in.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
STAND_IN_MEDIAN, STAND_IN_SPREAD = 3.0, 0.35
"""Seconds that the stand-in takes, lognormal: the seed measured some 3 s for Haiku's bridge."""
_LAST_WORDS = 4000
"""Characters of a process that did not start which are shown."""


@dataclass(frozen=True)
class Served:
    """Where everything is."""

    url: str
    """Of the application."""
    address: str
    """Of Headstart's gRPC API."""
    page: str
    """Of Headstart's live page."""
    stand_in: bool
    """Whether a stand-in answers for Haiku."""


@asynccontextmanager
async def everything(*, port: int = 0, http_port: int = 0) -> AsyncIterator[Served]:
    """A Headstart with a worker, and the application that uses it; 0 picks free ports."""
    environment = dict(os.environ)
    stand_in = not environment.get("ANTHROPIC_API_KEY", "").strip()
    async with AsyncExitStack() as stack:
        if stand_in:
            found = await stack.enter_async_context(
                _process(
                    r"(http://\S+)",
                    *("-m", "tests.support.messages_api"),
                    *("--delay", str(STAND_IN_MEDIAN), "--spread", str(STAND_IN_SPREAD)),
                    environment=environment,
                )
            )
            environment |= {
                "ANTHROPIC_API_KEY": "stand-in",
                "ANTHROPIC_BASE_URL": found[1],
                "BRIDGING_WEB_STAND_IN": "1",
            }
        port = port or _any_port()
        # The game's pages may watch their runs: nothing else calls over HTTP here.
        environment["HEADSTART_CORS_ORIGINS"] = ",".join(
            f"http://{host}:{port}" for host in ("localhost", "127.0.0.1")
        )
        data = stack.enter_context(tempfile.TemporaryDirectory(prefix="headstart-demo-"))
        found = await stack.enter_async_context(
            _process(
                r"live page on (?P<page>\S+)[\s\S]*serves on (?P<address>\S+)\. Try",
                *("-m", "headstart_service", "serve", "--data-dir", data),
                *("--grpc-port", "0", "--http-port", str(http_port)),
                environment=environment,
            )
        )
        environment["HEADSTART_ADDRESS"] = found["address"]
        environment["BRIDGING_WEB_HEADSTART"] = found["page"].rstrip("/")
        web = await stack.enter_async_context(
            _process(
                r"Word bridge on (\S+)",
                *("-m", "examples.bridging_web", "--port", str(port)),
                environment=environment,
            )
        )
        yield Served(web[1], found["address"], found["page"], stand_in)


@asynccontextmanager
async def _process(
    pattern: str, *arguments: str, environment: Mapping[str, str]
) -> AsyncIterator[re.Match[str]]:
    """Run Python until the context is left; gives what `pattern` finds in its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
        cwd=ROOT,
    )
    assert process.stdout is not None
    output, found = "", None
    try:
        async for line in process.stdout:
            output += line.decode(errors="replace")
            if found := re.search(pattern, output):
                break
        if not found:
            raise SystemExit(f"{' '.join(arguments[:3])} did not start:\n{output[-_LAST_WORDS:]}")
        reading = asyncio.create_task(_read_on(process.stdout))
        yield found
        reading.cancel()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _any_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


async def _read_on(stream: asyncio.StreamReader) -> None:
    """Discard its log: a full pipe would block the process."""
    while await stream.read(65_536):
        pass
