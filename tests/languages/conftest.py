from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.languages.tools import install_node_packages
from tests.support.certificates import authority, signed
from tests.support.processes import worker
from tests.support.replicas import LIGHT, Replicas
from tests.support.tokens import tokens_of
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(
    replicas: Replicas, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, str]]:
    """The variables by which a client's own tests find a server with mTLS and tokens."""
    directory: Path = tmp_path_factory.mktemp("secured")
    root = authority(directory, "ours")
    server, own = signed(root, directory, "server"), signed(root, directory, "own")
    tokens = tokens_of(shop=("shop", "read,write"), reader=("shop", "read"))
    replica = await replicas.add(
        HEADSTART_TLS_CERT=str(server.cert),
        HEADSTART_TLS_KEY=str(server.key),
        HEADSTART_TLS_CLIENT_CA=str(root.cert),
        HEADSTART_TOKENS=str(tokens.written(directory / "tokens")),
    )
    yield {
        "SECURED_ADDRESS": f"localhost:{replica.port}",
        "SECURED_CA": str(root.cert),
        "SECURED_CERT": str(own.cert),
        "SECURED_KEY": str(own.key),
        "SECURED_TOKEN": tokens.by_name["shop"],
        "SECURED_READER": tokens.by_name["reader"],
    }
    replica.process.kill()


@pytest.fixture(scope="session")
def node_packages() -> None:
    """The packages of examples/node, installed."""
    install_node_packages()
