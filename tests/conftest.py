from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.valkey import Valkey


@pytest.fixture
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Valkey]:
    """An empty Valkey of the test's own."""
    directory: Path = tmp_path_factory.mktemp("valkey")
    server = Valkey(directory)
    await server.start()
    yield server
    await server.kill()


class ByServers(LoadScopeScheduling):
    """Gives each process whole files, or all that the contract asks of one deployment.

    Modules share servers and models among their tests, and the contract's files the deployments.
    """

    def _split_scope(self, nodeid: str) -> str:
        deployment = re.match(r"tests/contract/.*\[(\w+-\d)[]-]", nodeid)
        return deployment[1] if deployment else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServers:
    return ByServers(config, log)
