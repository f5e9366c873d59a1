from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.valkey import Valkey


@pytest.fixture
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Valkey]:
    """An empty Valkey of the test's own."""
    directory: Path = tmp_path_factory.mktemp("valkey")
    server = Valkey(directory)
    await server.start()
    yield server
    await server.kill()
