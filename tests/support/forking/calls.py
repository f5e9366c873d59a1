"""What a forked process calls, and how it finds its siblings."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from headstart import BlockingClient, EagerPrecompute, PrecomputeClient, UnusableProcess
from tests.support.forking import CHILDREN, PATIENT

client = BlockingClient()
facade = EagerPrecompute.get_instance()


def use_all() -> str:
    """Use every kind of client as a backend does; "works" if all of them do."""
    key = f"page-{os.getpid()}"
    started = client.start_or_skip(key, "text", {}, budget=PATIENT)
    assert started is not None
    assert client.get_results(key, wait=PATIENT).custom == {"a": "there"}
    computed = client.get_or_compute(key, PATIENT, {"a": lambda: "live"}, budget=PATIENT)
    assert computed.sources == {"a": "ready"}, computed
    ends = time.monotonic() + PATIENT
    # The facade gives up within 0.4 s, which eight processes at once may take.
    while not facade.get_stats()["total_cached"]:
        assert time.monotonic() < ends, "the facade reaches no service"
    asyncio.run(_use_async(key))
    return "works"


async def _use_async(key: str) -> None:
    ends = time.monotonic() + PATIENT
    while not await facade.start_bridging_precompute(f"game-{key}", "ocean", "forest", "human"):
        assert time.monotonic() < ends, "the facade starts nothing"  # it gives up within a second
    async with PrecomputeClient() as own:
        assert (await own.get_results(key)).custom == {"a": "there"}


def use_none() -> str:
    """Show what every kind of client does where gRPC cannot run; "refused" if all do so."""
    computed = client.get_or_compute("page", PATIENT, {"a": lambda: "live"})
    assert computed.sources == {"a": "live"}, computed
    assert "forked" in computed.reasons["a"]
    assert client.start_or_skip("page", "text", {}) is None
    assert facade.get_status("page") is None
    assert asyncio.run(facade.get_precomputed_results("page")) is None
    for call in (lambda: client.start("page", "text", {}), lambda: asyncio.run(_start())):
        with pytest.raises(UnusableProcess, match=r"forked while gRPC ran in its parent.*spawn"):
            call()
    return "refused"


async def _start() -> Any:
    async with PrecomputeClient() as own:
        return await own.start("page", "text", {})


def meet(directory: Path) -> int:
    """Return this process's id once `CHILDREN` processes have come here, so that each does its part."""
    (directory / str(os.getpid())).touch()
    ends = time.monotonic() + PATIENT
    while len(list(directory.iterdir())) < CHILDREN:
        assert time.monotonic() < ends, f"only {len(list(directory.iterdir()))} processes came"
        time.sleep(0.01)
    return os.getpid()
