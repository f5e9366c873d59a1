"""Items of a step that runs for each item of a list, and soft needs, as callers see them."""

from __future__ import annotations

import pytest

from headstart import FailureReason, ItemProgress, ItemResult, PrecomputeClient, Results
from headstart.testing import fake_server
from headstart.v1 import precompute_pb2 as pb

RATES = [{"value": 7}, {"error": "away", "reason": "timed_out"}, {"value": 9}]
LATE = {"rates": [0.0, 0.0, 60.0]}


async def read(address: str, **options: object) -> Results:
    async with PrecomputeClient(address) as client:
        await client.start("cart", "carriers", {"carriers": ["a", "b", "c"]})
        return await client.get_results("cart", **options)


async def test_what_there_is_of_a_step_is_read_before_it_has_ended() -> None:
    with fake_server({"rates": RATES, "other": 1}, items=LATE) as server:
        results = await read(server.address)
        other = await read(server.address, result_steps=["other"])
    assert results.missing == ("rates",)
    progress = ItemProgress(total=3, completed=1, failed=1, running=1)
    assert results.steps["rates"].items == progress
    assert progress.ended == 2
    failed = ItemResult(index=1, error="away", failure_reason=FailureReason.TIMED_OUT, attempts=1)
    assert results.items("rates") == (ItemResult(index=0, value=7, attempts=1), failed)
    assert other.items("rates") == ()
    assert other.steps["rates"].items == progress


async def test_the_whole_list_reads_as_its_items_did() -> None:
    with fake_server({"rates": RATES, "other": 1}, items={"rates": [0.0] * 3}) as server:
        results = await read(server.address)
    assert results.custom == {"rates": RATES, "other": 1}
    assert [(item.index, item.value, item.error) for item in results.items("rates", float)] == [
        (0, 7.0, None),
        (1, None, "away"),
        (2, 9.0, None),
    ]
    assert results.partial_items == {}
    with pytest.raises(TypeError, match="the artifact is int, not a list of items"):
        results.items("other")
    with pytest.raises(KeyError, match="rates"):
        results.items("rate")
    with pytest.raises(TypeError):
        results.items("rates", str)


async def test_a_watcher_gets_each_item_once_it_has_ended() -> None:
    with fake_server({"rates": RATES}, items={"rates": [0.05, 0.1, 0.15]}) as server:
        async with PrecomputeClient(server.address) as client:
            await client.start("cart", "carriers", {})
            seen = [
                tuple(item.index for item in results.items("rates"))
                async for results in client.watch_results("cart")
            ]
    assert seen[-1] == (0, 1, 2)
    assert (0,) in seen
    assert (0, 1) in seen


async def test_a_soft_need_is_named_once_it_was_missing() -> None:
    failed = {"rates": "no carrier"}
    needs = {"cheapest": ["rates?"], "note": ["cheapest"]}
    with fake_server({"cheapest": 0, "note": ""}, failed=failed, needs=needs) as server:
        results = await read(server.address)
    assert results.steps["cheapest"].missing_needs == ("rates",)
    assert results.steps["note"].missing_needs == ()


def test_a_script_of_items_that_do_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"items\['rates'\] has 1 times, for 3 items"):
        fake_server({"rates": RATES}, items={"rates": [0.0]})
    with pytest.raises(ValueError, match="the value of rates must be a list of"):
        fake_server({"rates": [1, 2]}, items={"rates": [0.0, 0.0]})
    with pytest.raises(ValueError, match="no such step: other"):
        fake_server({"rates": RATES}, items={"other": [0.0]})


def test_a_stream_of_changes_has_each_item_once() -> None:
    from headstart._for_service import Changes

    message = pb.GetResultsResponse(revision=1)
    message.steps["rates"].items.total = 2
    message.items.add(step="rates", index=0, json="1")
    changes = Changes([])
    first = pb.GetResultsResponse.FromString(changes.since(message.SerializeToString()))
    assert len(first.items) == 1
    second = pb.GetResultsResponse.FromString(changes.since(message.SerializeToString()))
    assert (len(second.items), len(second.steps)) == (0, 0)
    message.steps["rates"].items.completed = 2
    message.items.add(step="rates", index=1, json="2")
    third = pb.GetResultsResponse.FromString(changes.since(message.SerializeToString()))
    assert [item.index for item in third.items] == [1]
    message.items[0].json = "3"
    fourth = pb.GetResultsResponse.FromString(changes.since(message.SerializeToString()))
    assert [item.json for item in fourth.items] == ["3"], "it replaces the one before"
    message.revision = 2
    again = pb.GetResultsResponse.FromString(changes.since(message.SerializeToString()))
    assert [item.json for item in again.items] == ["3", "2"]
