"""What steps can do, in combination: pools, streams, settling, memos, tries, sizes, providers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from headstart import NoResult, PrecomputeClient, PrecomputeStatus, StreamPiece
from headstart.v1 import precompute_pb2 as pb
from tests.support.combined_pipelines import REFERENCE
from tests.support.own_providers import KEY, written
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


class Following:
    """A caller that follows a step's stream from now on."""

    def __init__(self, client: PrecomputeClient, step: str, key: str = "k") -> None:
        self.pieces: list[StreamPiece] = []
        self._client, self._key, self._step = client, key, step
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for piece in self._client.stream(self._key, self._step):
            self.pieces.append(piece)

    @property
    def text(self) -> str:
        """What it has of the present try."""
        return joined(self.pieces)

    @property
    def restarts(self) -> int:
        return sum(piece.restarted for piece in self.pieces)


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
        worker(valkey.url, **CPU) as cpu,
        worker(valkey.url, **GPU) as gpu,
        PrecomputeClient(address) as client,
        stub(address) as service,
        asyncio.timeout(60),
    ):
        await client.start("k", "spoken", {"directory": str(tmp_path)})
        following = Following(client, "far")
        await wait_until(lambda: following.text == "7: " + WORDS)
        answer = await service.GetResults(pb.GetResultsRequest(key="k", partial_results=True))
        assert {p.step: p.text for p in answer.partial_results}["far"] == "7: " + WORDS

        # It does not notice that its run changes hands.
        cpu.kill()
        async with worker(valkey.url, **CPU) as other:
            await wait_until(lambda: "default/k revision 1 attempt 2 claimed" in other.output)
            assert not following.restarts
            gpu.kill()
            async with worker(valkey.url, **GPU):
                await wait_until(lambda: following.restarts, within=20)
                (tmp_path / "go").touch()
                await following.task
        assert following.text == f"7: {WORDS}end"
        assert following.restarts == 1


async def test_edits_leave_a_stream_of_another_pool_alone(valkey: Valkey, tmp_path: Path):
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **CPU),
        worker(valkey.url, **GPU),
        PrecomputeClient(address) as client,
        asyncio.timeout(60),
    ):
        inputs = {"directory": str(tmp_path)}
        await client.start("k", "spoken", inputs)
        following = Following(client, "far")
        await wait_until(lambda: following.text == "7: " + WORDS)
        for edit in range(1, 20):
            await client.start("k", "spoken", {**inputs, "edit": edit})
        (tmp_path / "go").touch()
        done = await client.get_results("k", wait=20)
        assert done.status is PrecomputeStatus.COMPLETED
        await following.task
        assert (following.text, following.restarts) == (f"7: {WORDS}end", 0)
        for step in ("near", "settled"):
            assert joined(await gathered(client, "k", step)) == f"edit 19: {WORDS}end"
            assert len(began(tmp_path, step)) == 1
        assert len(began(tmp_path, "far")) == 1


async def test_a_worker_of_all_pools_takes_over_a_stream_of_another(valkey: Valkey, tmp_path: Path):
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **CPU) as cpu,
        worker(valkey.url, **GPU) as gpu,
        PrecomputeClient(address) as client,
        asyncio.timeout(60),
    ):
        await client.start("k", "spoken", {"directory": str(tmp_path), "tokens": 500})
        following = Following(client, "far")
        await wait_until(lambda: "10 " in following.text)
        cpu.kill()
        async with worker(valkey.url, **SETTINGS) as both:
            await wait_until(lambda: following.restarts, within=20)
            await wait_until(lambda: "300 " in following.text, within=20)
            (tmp_path / "go").touch()
            await following.task
            assert following.text.endswith("499 end")
            assert following.restarts == 1
            assert began(tmp_path, "far") == [gpu.pid, both.pid]


async def test_streams_meet_memos_tries_and_sizes(valkey: Valkey, tmp_path: Path):
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **SETTINGS),
        PrecomputeClient(address) as client,
        stub(address) as service,
        asyncio.timeout(60),
    ):
        inputs = {"directory": str(tmp_path)}
        # Two runs share a step under way; the second one goes on without the first.
        await client.start("a", "kept", inputs)
        first = Following(client, "kept", "a")
        await wait_until(lambda: first.text == WORDS)
        await client.start("b", "kept", inputs)
        second = Following(client, "kept", "b")
        await wait_until(lambda: second.text == WORDS)
        await client.cancel("a")
        with pytest.raises(NoResult, match="cancelled"):
            await first.task
        (tmp_path / "go").touch()
        await second.task
        # A later run takes the result from the memo, and its caller gets all of it.
        await client.start("c", "kept", inputs)
        assert second.text == joined(await gathered(client, "c", "kept")) == f"{WORDS}end"
        items = await gathered(client, "c", "items")
        assert [item for piece in items for item in piece.items] == [0, 1, 2, 3, 4]
        assert len(began(tmp_path, "kept")) == len(began(tmp_path, "items")) == 1

        await client.start("broken", "broken", inputs)
        assert joined(await gathered(client, "broken", "breaks")) == "try 3 whole"
        with pytest.raises(NoResult, match="no more"):
            await gathered(client, "broken", "mistaken")
        assert len(began(tmp_path, "mistaken")) == 1

        await client.start("large", "large", inputs)
        with pytest.raises(NoResult, match="yielded more than 10,000 bytes, its max_bytes"):
            await gathered(client, "large", "large")
        answer = await service.GetResults(pb.GetResultsRequest(key="large", partial_results=True))
        assert [len(p.text) for p in answer.partial_results] == [10_000]


async def test_a_provider_of_another_pool_is_that_pools_alone(valkey: Valkey, tmp_path: Path):
    own = written(tmp_path) | {
        "HEADSTART_PIPELINES": "stock:POOLED",
        "HEADSTART_PROVIDERS": "shelf=not_installed:shelf",
    }
    mine = {
        "HEADSTART_PROVIDERS": "shelf=stock_providers:shelf",
        "HEADSTART_PROVIDER_SHELF_KEY": KEY,
        "HEADSTART_POOLS": "gpu",
    }
    async with (
        api(valkey.url, **own) as (_, address),
        worker(valkey.url, **own, HEADSTART_POOLS="default"),
        PrecomputeClient(address) as client,
    ):
        for place in ("cellar", "attic"):
            where = {"HEADSTART_PROVIDER_SHELF_PLACE": place}
            async with worker(valkey.url, **(own | mine | where)) as gpu:
                # The same run again: another identity makes other values.
                await client.start("k", "pooled", {"item": "salt"})
                expected = f"salt@{place}*3 by {gpu.pid}"
                assert joined(await gathered(client, "k", "far")) == expected
                done = await client.get_results("k", wait=30)
                assert done.artifact("near", str) == f"near {expected}"
                again = await client.start("k", "pooled", {"item": "salt"})
                assert again.outcome.value == "reused"
