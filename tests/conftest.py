from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.support.processes import POOLS
from tests.support.valkey import Valkey


@pytest.fixture
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Valkey]:
    """An empty Valkey of the test's own."""
    directory: Path = tmp_path_factory.mktemp("valkey")
    server = Valkey(directory)
    await server.start()
    yield server
    await server.kill()


# A busy machine makes any case take longer than Hypothesis' own 200 ms.
settings.register_profile("headstart", deadline=None)
settings.load_profile("headstart")

for pool in POOLS:  # more threads would spin on cores that other tests need
    os.environ.setdefault(pool, "1")

# Shells start what runs in the background deaf to Ctrl-C, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TOGETHER = {
    "the game's server": r"integration/test_(bridging_|commands|grpcurl|readme|seed_|service)",
    "the model": (
        r"unit/(bridging/|processes/test_worker_providers"
        r"|providers/test_provider_(embeddings|model_files|model_preparation|vocabulary))"
    ),
}
"""Files whose tests share what a process starts or loads once, in seconds."""


class ByServers(LoadScopeScheduling):
    """Gives each process whole files, or all that the contract asks of one deployment.

    Modules share servers and models among their tests, and the contract's files the deployments.
    Each test of chaos has servers of its own and takes a minute: each is given by itself.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/chaos/"):
            return nodeid
        if deployment := re.match(r"tests/contract/.*\[(\w+-\d)[]-]", nodeid):
            return deployment[1]
        together = (name for name, files in TOGETHER.items() if re.match(f"tests/{files}", nodeid))
        return next(together, nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServers:
    return ByServers(config, log)
