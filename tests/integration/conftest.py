from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from headstart_service.providers.batch_rules import BatchRules
from headstart_service.store.connect import WORKER, open_client
from headstart_service.store.message_batches import RedisMessageBatches
from headstart_service.store.store_rules import StoreRules
from tests.support.batches_api import BatchesApi
from tests.support.batching_side import RULES, Side, Sides
from tests.support.processes import ROOT, Process, Service, run_headstart, stub
from tests.support.valkey import Valkey


@dataclass(frozen=True)
class GameServer:
    """A `headstart serve` as `make run` starts it, with a local Messages API behind its worker."""

    process: Process
    address: str


def made_by_make_run() -> dict[str, str]:
    """Return the settings that `make run` gives a server."""
    [run] = re.findall(r"^run:.*\n(?:\t.*\n)+", (ROOT / "Makefile").read_text(), re.MULTILINE)
    [pipelines] = re.findall(r'HEADSTART_PIPELINES="\$\$\{HEADSTART_PIPELINES-(\S+)\}"', run)
    return {"HEADSTART_PIPELINES": pipelines}


@pytest.fixture(scope="session")
def messages_api() -> Iterator[str]:
    """The URL of a Messages API that answers after five seconds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.messages_api", "--delay", "5"],
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
        **made_by_make_run(),
    )
    try:
        yield GameServer(process, grpc_address(process))
    finally:
        process.stop()


def grpc_address(process: Process) -> str:
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


@pytest.fixture
async def batches_api() -> AsyncIterator[BatchesApi]:
    with BatchesApi() as opened:
        yield opened


@pytest.fixture
async def kept_batches(valkey: Valkey) -> AsyncIterator[RedisMessageBatches]:
    client = open_client(valkey.url, WORKER)
    made = RedisMessageBatches(client, StoreRules(partitions=1, max_records=100, failure_ttl=60.0))
    yield made
    await made.aclose()
    await client.aclose()


@pytest.fixture
async def sides(kept_batches: RedisMessageBatches, batches_api: BatchesApi) -> AsyncIterator[Sides]:
    """Opens workers' models that share a Valkey."""
    async with AsyncExitStack() as stack:

        async def opened(rules: BatchRules = RULES) -> Side:
            side = Side(batches_api, kept_batches, rules)
            await stack.enter_async_context(side.model)
            return side

        yield opened
