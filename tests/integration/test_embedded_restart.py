"""A `serve` without a Redis starts its own Valkey again, says so by its health, and loses nothing."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from headstart.v1 import precompute_pb2 as pb
from tests.support.pipelines import REFERENCES
from tests.support.processes import Process, alive, children, health, serving, stub
from tests.support.requests import noop, results
from tests.support.waiting import wait_until

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}


def _valkeys(server: Process) -> list[int]:
    return [pid for pid, command in children(server.pid).items() if b"valkey" in command]


async def test_a_killed_embedded_valkey_is_back_with_what_had_ended(tmp_path: Path):
    async with serving(HEADSTART_DATA_DIR=str(tmp_path), **LIGHT) as (server, address):
        async with stub(address) as service:
            await service.StartPrecompute(noop("k", 41))
            before = await service.GetResults(results("k", 10))

            async def is_not_serving() -> bool:
                # Once is too short for anybody to notice; so it dies as often as it takes.
                for pid in _valkeys(server):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return await health(address) == "NOT_SERVING"

            async def is_serving() -> bool:
                return await health(address) == "SERVING"

            await wait_until(is_not_serving)
            await wait_until(is_serving)
            assert await service.GetResults(results("k")) == before
            await service.StartPrecompute(noop("l", 1))
            answer = await service.GetResults(results("l", 20))
        assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED
        assert "embedded Valkey ended with code -9" in server.output
        server.send(signal.SIGTERM)
        left = children(server.pid)
        assert await server.ended() == 0
        assert not any(map(alive, left))
