from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.languages.tools import install_node_packages
from tests.support.processes import worker
from tests.support.replicas import LIGHT, Replicas
from tests.support.valkey import Valkey


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replicas(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Replicas]:
    """Two API processes and a worker on one Valkey."""
    directory: Path = tmp_path_factory.mktemp("replicas")
    async with AsyncExitStack() as stack:
        valkey = Valkey(directory)
        await valkey.start()
        stack.push_async_callback(valkey.kill)
        await stack.enter_async_context(worker(valkey.url, **LIGHT))
        replicas = Replicas(valkey.url, stack)
        for _ in range(2):
            await replicas.add()
        yield replicas


@pytest.fixture(scope="session")
def node_packages() -> None:
    """The packages of examples/node, installed."""
    install_node_packages()
