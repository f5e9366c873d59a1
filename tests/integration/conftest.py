from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import ROOT, Process, Service, run_headstart, stub


@dataclass(frozen=True)
class GameServer:
    """A `headstart serve` as `make run` starts it, with a local Messages API behind its worker."""

    process: Process
    address: str


def text_pipeline(directory: Path) -> dict[str, str]:
    """The settings with which a server has the pipeline that the architecture page shows."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (directory / "my_package.py").write_text(code)
    path = os.pathsep.join(filter(None, (str(directory), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "HEADSTART_PIPELINES": "my_package:TEXT"}


@pytest.fixture(scope="session")
def messages_api() -> Iterator[str]:
    """The URL of a Messages API that answers after five seconds, to the cookbook after a minute."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.messages_api", "--delay", "5", "--slow", "summer"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().split()[-1]
    process.terminate()
    process.wait(10)
    process.stdout.close()


@pytest.fixture(scope="session")
def game_server(
    tmp_path_factory: pytest.TempPathFactory, messages_api: str
) -> Iterator[GameServer]:
    process = run_headstart(
        "serve",
        HEADSTART_DATA_DIR=str(tmp_path_factory.mktemp("data")),
        HEADSTART_GRPC_PORT="0",
        HEADSTART_HTTP_PORT="0",
        ANTHROPIC_API_KEY="test-key",
        ANTHROPIC_BASE_URL=messages_api,
        **text_pipeline(tmp_path_factory.mktemp("pipelines")),
    )
    try:
        yield GameServer(process, _address(process))
    finally:
        process.stop()


def _address(process: Process) -> str:
    """The address, once it serves: `processes.address_of` for a fixture that has no event loop."""
    deadline = time.monotonic() + 60
    while "Headstart serves on" not in process.output:
        assert time.monotonic() < deadline, process.tail
        time.sleep(0.05)
    return process.output.split("gRPC on ")[1].split(",")[0]


@pytest.fixture
async def games(game_server: GameServer) -> AsyncIterator[Service]:
    """The stub of the game server."""
    async with stub(game_server.address) as service:
        yield service
