"""Items of steps that run once for each item of a list, as a test scripts them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart._messages.failure_reasons import FAILURE_REASONS, FailureReason
from headstart._messages.items import items_of
from headstart._messages.json_text import write_json
from headstart._messages.results import StepState
from headstart.v1 import precompute_pb2 as pb

_PARALLEL = 8
"""Items that a step computes at a time by default."""
_NUMBERS: Mapping[FailureReason, Any] = {
    reason: number for number, reason in FAILURE_REASONS.items()
}


@dataclass(frozen=True, slots=True)
class ScriptedItems:
    """The items of one step, and when each ends."""

    results: Sequence[pb.ItemResult]
    after: Sequence[float]
    """Seconds from when the run is taken until each item ends."""

    def fill(self, message: pb.GetResultsResponse, step: str, had: float, state: StepState) -> None:
        """Write the items of a step after so many seconds, and how far it is while it goes on.

        A step that is COMPLETED has them in its value.
        """
        whole = state is StepState.COMPLETED
        pairs = zip(self.results, self.after, strict=True)
        ended = [item for item, after in pairs if whole or after <= had]
        if not whole:
            message.items.extend(ended)
        if state is StepState.PENDING:
            return  # its run was cancelled
        failed = sum(item.failure_reason != pb.FAILURE_REASON_UNSPECIFIED for item in ended)
        items = message.steps[step].items
        items.total, items.completed, items.failed = (
            len(self.results),
            len(ended) - failed,
            failed,
        )
        items.running = min(_PARALLEL, len(self.results) - len(ended))

    def next_end(self, had: float) -> float:
        """Return the seconds from when the run is taken until the next item ends."""
        return min((after for after in self.after if after > had), default=math.inf)


def scripted_items(step: str, value: Any, after: Sequence[float]) -> ScriptedItems:
    """Return the items of a step's scripted value. Raises ValueError for one that has none."""
    try:
        items = list(items_of(value))
    except TypeError as error:
        rule = 'must be a list of {"value": …} and {"error": …, "reason": …}'
        raise ValueError(f"the value of {step} {rule}: {error}") from None
    if len(items) != len(after):
        raise ValueError(f"items[{step!r}] has {len(after)} times, for {len(items)} items")
    results = []
    for item in items:
        message = pb.ItemResult(step=step, index=item.index, attempts=1)
        if item.error is None:
            message.json = write_json(item.value)
        else:
            reason = item.failure_reason or FailureReason.STEP_FAILED
            message.error, message.failure_reason = item.error, _NUMBERS[reason]
        results.append(message)
    return ScriptedItems(results, tuple(after))
