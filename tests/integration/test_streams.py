"""What steps give before they end, between real processes: growth, cursors, restarts, cancels."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from headstart import BlockingClient, NoResult, PrecomputeClient, StepState, StreamPiece
from headstart.v1 import precompute_pb2 as pb
from tests.support.processes import api, stub, worker
from tests.support.streaming_pipelines import REFERENCE, whole
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": REFERENCE,
    "HEADSTART_LEASE": "1",
}


async def gathered(client: PrecomputeClient, key: str, step: str) -> list[StreamPiece]:
    return [piece async for piece in client.stream(key, step)]


def joined(pieces: list[StreamPiece]) -> str:
    return "".join(piece.text for piece in pieces)


async def test_a_step_is_read_while_it_grows_and_to_its_end(valkey: Valkey, tmp_path: Path) -> None:
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        api(valkey.url, **SETTINGS) as (_, other),
        worker(valkey.url, **SETTINGS),
        PrecomputeClient(address) as client,
        PrecomputeClient(other) as elsewhere,
        stub(other) as service,
    ):
        await client.start("k", "words", {"directory": str(tmp_path)})
        async with asyncio.timeout(30), aclosing(client.stream("k", "draft")) as pieces:
            first = await anext(pieces)
            assert (first.text, first.restarted) == ("befüre ", False)

            # A late caller of another replica reads the same, also by its deadline.
            request = pb.GetResultsRequest(key="k", partial_results=True)
            answer = await service.GetResults(request)
            partials = {each.step: each for each in answer.partial_results}
            assert partials["draft"].text == "befüre "
            assert (partials["draft"].offset, partials["draft"].next_offset) == (0, 8)
            assert list(partials["verdicts"].json_lines) == ['{"words":1}', '{"words":2}']
            cursor = pb.PartialCursor(
                step="draft", generation=partials["draft"].generation, offset=5
            )
            request.partial_cursors.append(cursor)
            answer = await service.GetResults(request)
            assert {p.step: p.text for p in answer.partial_results}["draft"] == "re "
            old = await service.GetResults(pb.GetResultsRequest(key="k"))
            assert not old.partial_results
            batch = pb.BatchGetResultsRequest(keys=["k"], partial_results=True)
            [found] = (await service.BatchGetResults(batch)).results
            assert len(found.response.partial_results) == 2

            (tmp_path / "go").touch()
            assert [piece.text async for piece in pieces] == ["after"]
        with pytest.raises(NoResult, match=r"failing has no result: it failed: broke off"):
            await gathered(client, "k", "failing")
        await client.get_results("k", wait=10)
        assert joined(await gathered(elsewhere, "k", "draft")) == "befüre after"
        *spoken, last = await gathered(elsewhere, "k", "verdict")
        assert (joined(spoken), last.result) == ("counting", {"words": 2})
        with closing(BlockingClient(other)) as blocking:
            pieces = await asyncio.to_thread(lambda: list(blocking.stream("k", "verdicts")))
        assert [item for piece in pieces for item in piece.items] == [{"words": 1}, {"words": 2}]

        # What a failed step gave is readable too, and a resumed watch gets nothing twice.
        watch = pb.WatchResultsRequest(keys=["k"], partial_results=True)
        messages = [message async for message in service.WatchResults(watch)]
        partials = {each.step: each for m in messages for each in m.partial_results}
        assert partials["failing"].text == "bef"
        watch.partial_cursors.extend(
            pb.PartialCursor(key="k", step=p.step, generation=p.generation, offset=p.next_offset)
            for p in partials.values()
        )
        messages = [message async for message in service.WatchResults(watch)]
        assert not [each for m in messages for each in m.partial_results]
        report = messages[-1].results.steps["failing"]
        assert report.state == pb.STEP_STATE_FAILED


async def test_a_cancel_closes_the_generator_within_100_ms(valkey: Valkey, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **SETTINGS),
        PrecomputeClient(address) as client,
    ):
        await client.start("k", "words", {"directory": str(tmp_path)})
        async with asyncio.timeout(30), aclosing(client.stream("k", "draft")) as pieces:
            await anext(pieces)
            began = time.monotonic()
            await client.cancel("k")
            with pytest.raises(NoResult, match="its run is cancelled"):
                await anext(pieces)
        await wait_until(closed.exists)
        assert float(closed.read_text()) - began < 0.1 + 0.4, "with what a busy machine takes"
        status = await client.get_status("k")
        assert status.steps["draft"] is not StepState.COMPLETED


async def followed(client: PrecomputeClient, key: str, tokens: int, seen: dict[str, int]) -> int:
    """Follow a stream to its end; check that no token is lost or doubled; count its restarts."""
    text, restarts = "", 0
    async for piece in client.stream(key, "count"):
        if piece.restarted:
            text, restarts = "", restarts + 1
        text += piece.text
        assert whole(tokens).startswith(text), (key, text)
        seen[key] = len(text)
    assert text == whole(tokens), key
    return restarts


async def test_no_token_is_lost_or_doubled_when_a_server_and_a_worker_are_killed(
    valkey: Valkey,
) -> None:
    tokens, keys = 60, [f"k{number}" for number in range(30)]
    inputs = {"tokens": tokens, "pause": 0.05}
    more = {"HEADSTART_WORKER_CONCURRENCY": "20"}
    async with (
        api(valkey.url, **SETTINGS) as (killed, one),
        api(valkey.url, **SETTINGS) as (_, two),
        worker(valkey.url, **SETTINGS, **more) as lost,
        worker(valkey.url, **SETTINGS, **more),
        PrecomputeClient(f"ipv4:{one},{two}") as client,
        asyncio.timeout(60),
    ):
        for key in keys:
            await client.start(key, "count", inputs)
        seen: dict[str, int] = {}
        following = [asyncio.create_task(followed(client, key, tokens, seen)) for key in keys]
        await wait_until(lambda: len(seen) == len(keys) and min(seen.values()) > 20)
        killed.kill()
        lost.kill()
        restarts = await asyncio.gather(*following)
        assert 0 < sum(map(bool, restarts)) < len(keys)
