"""A `serve` without a Redis starts its own Valkey again, says so by its health, and loses nothing."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.store.embedded import dying_with_parent
from tests.support.pipelines import REFERENCES
from tests.support.processes import (
    ROOT,
    Process,
    alive,
    children,
    health,
    run_headstart,
    serving,
    stub,
)
from tests.support.requests import noop, results
from tests.support.waiting import wait_until

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}


def _valkeys(server: Process) -> list[int]:
    return [pid for pid, command in children(server.pid).items() if b"valkey" in command]


def test_a_command_whose_parent_has_died_before_it_begins_does_not_begin():
    command = dying_with_parent(["echo", "begun"])
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"begun\n"
    of_another = ["sh", "-c", '"$@"; true', "sh", *command]
    assert subprocess.run(of_another, capture_output=True, check=True).stdout == b""


def test_no_child_runs_python_between_fork_and_exec():
    """Beside gRPC's threads, one child in fifteen crashes there."""
    sources = (
        path
        for folder in ("benchmarks", "client", "examples", "service", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if path != Path(__file__)
    )
    assert not [path for path in sources if "preexec_fn=" in path.read_text("utf-8")]


async def test_a_deleted_data_directory_is_made_anew_and_named(tmp_path: Path):
    directory = tmp_path / "data"
    async with serving(HEADSTART_DATA_DIR=str(directory), **LIGHT) as (server, address):
        async with stub(address) as service:
            await service.StartPrecompute(noop("k", 41))
            await service.GetResults(results("k", 10))
            shutil.rmtree(directory)
            await server.says("embedded Valkey runs again")

            async def starts() -> bool:
                with suppress(grpc.aio.AioRpcError):
                    await service.StartPrecompute(noop("l", 1))
                    return True
                return False

            await wait_until(starts)
            answer = await service.GetResults(results("l", 20))
        assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED
        assert f"another program has deleted {directory}, and all results with it" in server.output
        assert server.output.count("embedded Valkey ended with code") == 1
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        # It is locked again: nobody else may use it.
        second = run_headstart(
            "serve", HEADSTART_DATA_DIR=str(directory), HEADSTART_GRPC_PORT="0", **LIGHT
        )
        try:
            assert await second.ended() == 2
            assert f"another server (process {server.pid}) uses {directory}" in second.output
        finally:
            second.stop()


async def test_a_data_directory_that_cannot_be_made_anew_is_named(tmp_path: Path):
    parent = tmp_path / "disk"
    directory = parent / "data"
    async with serving(HEADSTART_DATA_DIR=str(directory), **LIGHT) as (server, address):
        shutil.rmtree(parent)
        parent.write_text("no directory")
        await server.says(f"embedded Valkey does not start: HEADSTART_DATA_DIR: .*{directory}")
        parent.unlink()

        async def is_serving() -> bool:
            return await health(address) == "SERVING"

        await server.says("embedded Valkey runs again")
        await wait_until(is_serving)


@pytest.mark.chaos
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
