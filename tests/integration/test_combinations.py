"""What steps can do, in combination: streams in other pools, settling, memos, retries, sizes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from headstart import NoResult, PrecomputeClient, PrecomputeStatus, StreamPiece
from headstart.v1 import precompute_pb2 as pb
from tests.support.combined_pipelines import REFERENCE
from tests.support.processes import api, stub, worker
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": REFERENCE,
    "HEADSTART_LEASE": "1",
}
CPU, GPU = ({**SETTINGS, "HEADSTART_POOLS": pool} for pool in ("default", "gpu"))
WORDS = "0 1 2 3 4 "


def began(directory: Path, step: str) -> Sequence[int]:
    file = directory / "began"
    lines = file.read_text().splitlines() if file.exists() else []
    return [int(line.split()[-1]) for line in lines if line.startswith(f"{step} ")]


async def gathered(client: PrecomputeClient, key: str, step: str) -> list[StreamPiece]:
    return [piece async for piece in client.stream(key, step)]


def joined(pieces: Sequence[StreamPiece]) -> str:
    text = ""
    for piece in pieces:
        text = piece.text if piece.restarted else text + piece.text
    return text


async def test_a_stream_of_another_pool_grows_for_callers(valkey: Valkey, tmp_path: Path):
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **CPU),
        worker(valkey.url, **GPU),
        PrecomputeClient(address) as client,
        stub(address) as service,
    ):
        await client.start("k", "spoken", {"directory": str(tmp_path)})
        async with asyncio.timeout(20), aclosing(client.stream("k", "far")) as pieces:
            text = ""
            async for piece in pieces:
                text += piece.text
                if text == "7: " + WORDS:
                    break
            request = pb.GetResultsRequest(key="k", partial_results=True)
            answer = await service.GetResults(request)
            assert {p.step: p.text for p in answer.partial_results}["far"] == "7: " + WORDS
            (tmp_path / "go").touch()
            assert joined([p async for p in pieces]) == "end"
        assert joined(await gathered(client, "k", "settled")) == f"edit 0: {WORDS}end"


async def test_a_killed_worker_of_another_pool_begins_its_stream_anew(
    valkey: Valkey, tmp_path: Path
):
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **CPU) as cpu,
        worker(valkey.url, **GPU) as gpu,
        PrecomputeClient(address) as client,
        asyncio.timeout(40),
    ):
        await client.start("k", "spoken", {"directory": str(tmp_path)})
        got: list[StreamPiece] = []

        async def follow() -> None:
            async for piece in client.stream("k", "far"):
                got.append(piece)

        following = asyncio.create_task(follow())
        await wait_until(lambda: joined(got) == "7: " + WORDS)
        cpu.kill()
        async with worker(valkey.url, **CPU):
            await asyncio.sleep(2)
            assert not any(piece.restarted for piece in got)
            gpu.kill()
            async with worker(valkey.url, **GPU):
                await wait_until(lambda: any(piece.restarted for piece in got), within=20)
                (tmp_path / "go").touch()
                await following
                assert joined(got) == f"7: {WORDS}end"


async def test_edits_leave_a_stream_of_another_pool_alone(valkey: Valkey, tmp_path: Path):
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **CPU),
        worker(valkey.url, **GPU),
        PrecomputeClient(address) as client,
        asyncio.timeout(60),
    ):
        for edit in range(20):
            await client.start("k", "spoken", {"directory": str(tmp_path), "edit": edit})
            await asyncio.sleep(0.1)
        (tmp_path / "go").touch()
        done = await client.get_results("k", wait=20)
        assert done.status is PrecomputeStatus.COMPLETED
        assert done.artifact("settled", str) == f"edit 19: {WORDS}end"
        assert joined(await gathered(client, "k", "near")) == f"edit 19: {WORDS}end"
        assert joined(await gathered(client, "k", "far")) == f"7: {WORDS}end"
        assert len(began(tmp_path, "near")) == 1
        assert len(began(tmp_path, "settled")) == 1
        assert len(began(tmp_path, "far")) == 1


async def test_a_memoised_stream_is_whole_for_later_runs(valkey: Valkey, tmp_path: Path):
    (tmp_path / "go").touch()
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **CPU),
        worker(valkey.url, **GPU),
        PrecomputeClient(address) as client,
        stub(address) as service,
        asyncio.timeout(30),
    ):
        for key in ("a", "b"):
            await client.start(key, "kept", {"directory": str(tmp_path), "edit": ord(key)})
            assert joined(await gathered(client, key, "kept")) == f"{WORDS}end"
            pieces = await gathered(client, key, "items")
            assert [i for p in pieces for i in p.items] == [0, 1, 2, 3, 4], key
            await client.get_results(key, wait=10)
            last = await client.get_results(key)
            assert last.artifact("items", list[int]) == [0, 1, 2, 3, 4]
            assert joined(await gathered(client, key, "kept")) == f"{WORDS}end"
        assert len(began(tmp_path, "kept")) == 1
        assert len(began(tmp_path, "items")) == 1


async def test_runs_share_a_memoised_stream_under_way(valkey: Valkey, tmp_path: Path):
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **SETTINGS),
        PrecomputeClient(address) as client,
        asyncio.timeout(30),
    ):
        await client.start("a", "kept", {"directory": str(tmp_path)})
        await wait_until(lambda: began(tmp_path, "kept"))
        await asyncio.sleep(0.2)
        await client.start("b", "kept", {"directory": str(tmp_path)})
        async with aclosing(client.stream("b", "kept")) as pieces:
            assert (await anext(pieces)).text == WORDS
            await client.cancel("a")
            (tmp_path / "go").touch()
            assert joined([p async for p in pieces]) == "end"


async def test_a_try_after_a_broken_stream_begins_anew(valkey: Valkey, tmp_path: Path):
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **SETTINGS),
        PrecomputeClient(address) as client,
        asyncio.timeout(30),
    ):
        await client.start("a", "broken", {"directory": str(tmp_path)})
        pieces = await gathered(client, "a", "breaks")
        assert joined(pieces) == "try 3 whole"
        with pytest.raises(NoResult, match="no more"):
            await gathered(client, "a", "mistaken")
        assert len(began(tmp_path, "mistaken")) == 1


async def test_a_stream_ends_at_its_steps_size(valkey: Valkey, tmp_path: Path):
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **SETTINGS),
        PrecomputeClient(address) as client,
        stub(address) as service,
        asyncio.timeout(30),
    ):
        await client.start("a", "large", {"directory": str(tmp_path)})
        with pytest.raises(NoResult) as error:
            await gathered(client, "a", "large")
        print(error.value)
        request = pb.GetResultsRequest(key="a", partial_results=True)
        answer = await service.GetResults(request)
        assert sum(len(p.text) for p in answer.partial_results) <= 11_000
        assert not began(tmp_path, "too")


async def test_a_worker_of_all_pools_takes_over_a_stream_of_another(valkey: Valkey, tmp_path: Path):
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **CPU) as cpu,
        worker(valkey.url, **GPU) as gpu,
        PrecomputeClient(address) as client,
        asyncio.timeout(60),
    ):
        await client.start("k", "spoken", {"directory": str(tmp_path), "tokens": 500})
        got: list[StreamPiece] = []

        async def follow() -> None:
            async for piece in client.stream("k", "far"):
                got.append(piece)

        following = asyncio.create_task(follow())
        await wait_until(lambda: "10 " in joined(got))
        cpu.kill()
        async with worker(valkey.url, **SETTINGS) as both:
            await wait_until(lambda: any(piece.restarted for piece in got), within=20)
            await wait_until(lambda: "450 " in joined(got), within=20)
            (tmp_path / "go").touch()
            await following
            assert joined(got).endswith("499 end")
            assert sum(piece.restarted for piece in got) == 1
            assert began(tmp_path, "far") == [gpu.pid, both.pid]
