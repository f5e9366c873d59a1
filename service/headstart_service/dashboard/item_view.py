"""The items of a step that runs once for each of a list: how many ended, and why some failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from headstart.v1 import precompute_pb2 as pb

from ..values.fragments import REASONS

_FAILED: Final = 20
"""Failed items of a step that the page shows at most: the first ones."""
_ERROR: Final = 300
_LARGEST: Final = 1024 * 1024
"""Bytes of a list beyond which its failed items are counted alone: to read more takes too long."""
FailedItem = dict[str, Any]


def items_view(report: pb.StepReport) -> dict[str, int] | None:
    """Return how far a step is with its list; None for other steps."""
    if not report.HasField("items"):
        return None
    items = report.items
    return {
        "total": items.total,
        "completed": items.completed,
        "failed": items.failed,
        "running": items.running,
    }


def failed_items(results: pb.GetResultsResponse) -> dict[str, list[FailedItem]]:
    """Return the first failed items of each step that has some, with their places and reasons."""
    found = {}
    for name in results.steps:
        if results.steps[name].items.failed and (
            first := list(islice(_of(results, name), _FAILED))
        ):
            found[name] = first
    return found


def _of(results: pb.GetResultsResponse, step: str) -> Iterator[FailedItem]:
    """Yield the failed items of a step: of its value if there is one, else those that ended."""
    artifacts = results.custom.artifacts
    if step not in artifacts:
        for item in sorted(results.items, key=lambda each: each.index):
            reason = REASONS.get(item.failure_reason)
            if item.step == step and reason is not None:
                yield _failed(item.index, item.error, reason.value)
    elif len(text := artifacts[step].json) <= _LARGEST:
        for index, item in enumerate(json.loads(text)):
            if "error" in item:
                yield _failed(index, item["error"], item["reason"])


def _failed(index: int, error: str, reason: str) -> FailedItem:
    return {"index": index, "error": error[:_ERROR], "failure_reason": reason}
