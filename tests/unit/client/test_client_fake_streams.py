"""Streams of `headstart.testing.fake_server`, and how the client follows any stream."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from headstart import BlockingClient, NoResult, PrecomputeClient, StreamPiece
from headstart._messages.stream_pieces import ReceivedPieces
from headstart.testing import fake_server
from headstart.v1 import precompute_pb2 as pb


async def gathered(client: PrecomputeClient, key: str, step: str) -> list[StreamPiece]:
    return [piece async for piece in client.stream(key, step)]


async def test_scripted_pieces_come_one_after_the_other() -> None:
    streams = {"draft": ["Bread ", "wants ", "flöur"], "offers": [{"price": 1}, {"price": 2}]}
    with fake_server(streams=streams, delays={"draft": 0.3}) as server:
        async with PrecomputeClient(server.address) as client:
            await client.start("k", "page", {})
            draft, offers = await asyncio.gather(
                gathered(client, "k", "draft"), gathered(client, "k", "offers")
            )
            assert [piece.text for piece in draft] == ["Bread ", "wants ", "flöur"]
            assert [item for piece in offers for item in piece.items] == streams["offers"]
            results = await client.get_results("k", wait=5)
            assert results.artifact("draft", str) == "Bread wants flöur"
        with BlockingClient(server.address) as blocking:
            late = await asyncio.to_thread(lambda: list(blocking.stream("k", "draft")))
        assert [str(piece) for piece in late] == ["Bread wants flöur"]


async def test_results_have_what_was_given_so_far() -> None:
    streams = {"draft": ["Bread ", "wants"], "offers": [{"price": 1}, 2]}
    with fake_server(streams=streams, delays={"draft": 3600}) as server:
        async with PrecomputeClient(server.address) as client:
            await client.start("k", "page", {})
            results = await client.get_results(
                "k", wait=1, required_steps=["offers"], partial_results=True
            )
            assert results.partials == {"draft": "Bread ", "offers": [{"price": 1}, 2]}
            assert (await client.get_results("k")).partials == {}
            async with aclosing(client.watch_results("k", partial_results=True)) as states:
                async for results in states:
                    if "offers" in results.partials:
                        break
            assert results.partials["draft"] == "Bread "


async def test_a_step_without_pieces_gives_its_result_and_a_failed_one_raises() -> None:
    values = {"words": ["a", "b"], "about": {"size": 2}}
    with fake_server(values, failed={"draft": "no luck"}, streams={"draft": ["so "]}) as server:
        async with PrecomputeClient(server.address) as client:
            await client.start("k", "page", {})
            assert await gathered(client, "k", "words") == [StreamPiece(items=("a", "b"))]
            assert await gathered(client, "k", "about") == [StreamPiece(result={"size": 2})]
            with pytest.raises(NoResult, match="draft has no result: it failed: no luck") as no:
                await gathered(client, "k", "draft")
            assert (no.value.step, no.value.failure_reason) == ("draft", "step_failed")


def test_a_new_generation_makes_what_was_received_void() -> None:
    received = ReceivedPieces("draft")

    def part(generation: int, offset: int, text: str) -> pb.PartialResult:
        end = offset + len(text.encode())
        return pb.PartialResult(
            step="draft", generation=generation, offset=offset, next_offset=end, text=text
        )

    assert received.take(part(1, 0, "one ")) == StreamPiece(text="one ")
    assert received.take(part(1, 0, "one ")) is None, "again, from a stream that was cut"
    assert received.take(part(2, 0, "")) == StreamPiece(restarted=True)
    assert received.take(part(2, 0, "two")) == StreamPiece(text="two")
    assert received.cursor == pb.PartialCursor(step="draft", generation=2, offset=3)


def test_a_stream_is_no_text() -> None:
    with pytest.raises(TypeError, match=r"streams\['draft'\] must be a list of pieces, is 'words'"):
        fake_server(streams={"draft": "words"})
