"""The failed items of a step: the first ones, with their reasons, however large the list is."""

from __future__ import annotations

import json

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.dashboard.item_view import failed_items


def results(total: int, failed: int) -> pb.GetResultsResponse:
    found = pb.GetResultsResponse()
    found.steps["rates"].items.CopyFrom(pb.ItemProgress(total=total, failed=failed))
    return found


def test_of_a_step_that_runs_the_first_failed_items_are_shown() -> None:
    running = results(90, 40)
    for index in reversed(range(40)):
        item = running.items.add(step="rates", index=2 * index, error="x" * 600)
        item.failure_reason = pb.FAILURE_REASON_TIMED_OUT
        running.items.add(step="rates", index=2 * index + 1, json="7")
        running.items.add(step="other", index=0, error="of another step")
    found = failed_items(running)
    assert found.keys() == {"rates"}
    assert [each["index"] for each in found["rates"]] == list(range(0, 40, 2))
    assert found["rates"][0] == {"index": 0, "error": "x" * 300, "failure_reason": "timed_out"}


@pytest.mark.parametrize(
    ("size", "shown"),
    [(10, [{"index": 1, "error": "away", "failure_reason": "step_failed"}]), (1_100_000, [])],
)
def test_of_a_step_with_a_value_they_are_read_from_it_unless_it_is_large(
    size: int, shown: list[dict[str, object]]
) -> None:
    ended = results(2, 1)
    items = [{"value": "v" * size}, {"error": "away", "reason": "step_failed"}]
    ended.custom.artifacts["rates"].json = json.dumps(items)
    assert failed_items(ended).get("rates", []) == shown


def test_a_step_without_failed_items_has_none() -> None:
    ended = results(1, 0)
    ended.custom.artifacts["rates"].json = json.dumps([{"value": {"error": "no failure"}}])
    assert failed_items(ended) == {}
