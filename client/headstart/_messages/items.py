"""The items of steps that run once for each item of a list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from json import loads
from typing import Any, Final

from headstart._errors import ServiceError
from headstart._messages.artifacts import Artifact, as_type_of
from headstart._messages.durations import StepEstimate, estimate_of
from headstart._messages.failure_reasons import FAILURE_REASONS, FailureReason
from headstart.v1 import precompute_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemProgress:
    """How far a step is that runs once for each item of a list."""

    total: int
    """How many items the list has."""
    completed: int
    failed: int
    running: int
    estimate: StepEstimate | None = None
    """In how long one item ends once it has begun; None before the first has ended."""

    @property
    def ended(self) -> int:
        """Return how many have a value or have failed."""
        return self.completed + self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """One item that has ended."""

    index: int
    """Its place in the step's list, from 0."""
    value: Artifact = None
    """None if it has failed."""
    error: str | None = None
    """Why it has failed; None if it has a value."""
    failure_reason: FailureReason | None = None
    """The same as data; also None if this client is too old to know it."""
    attempts: int | None = None
    """How often it was tried; None once the whole list is there."""


_REASONS: Final = {reason.value: reason for reason in FailureReason}


def progress_from(report: pb.StepReport) -> ItemProgress | None:
    """Convert how far a step is with its list, if it has one."""
    if not report.HasField("items"):
        return None
    items = report.items
    return ItemProgress(
        total=items.total,
        completed=items.completed,
        failed=items.failed,
        running=items.running,
        estimate=estimate_of(items),
    )


def partial_items_from(message: pb.GetResultsResponse) -> dict[str, tuple[ItemResult, ...]]:
    """Convert the items of steps that have not completed. Raises ServiceError."""
    found: dict[str, list[ItemResult]] = {}
    for item in message.items:
        failed = item.failure_reason != pb.FAILURE_REASON_UNSPECIFIED
        try:
            value = None if failed else loads(item.json)
        except ValueError as error:
            wrong = f"the service sent item {item.index} of step {item.step} that is no JSON"
            raise ServiceError(wrong) from error
        found.setdefault(item.step, []).append(
            ItemResult(
                index=item.index,
                value=value,
                error=item.error if failed else None,
                failure_reason=FAILURE_REASONS.get(item.failure_reason),
                attempts=item.attempts,
            )
        )
    return {step: tuple(items) for step, items in found.items()}


def items_of(artifact: Artifact) -> Iterable[ItemResult]:
    """Return the items of a completed step. Raises TypeError if that is no list of items."""
    if not isinstance(artifact, list):
        raise TypeError(f"the artifact is {type(artifact).__name__}, not a list of items")
    for index, item in enumerate(artifact):
        if not isinstance(item, Mapping) or not {"value", "error"} & item.keys():
            raise TypeError(f"place {index} of the list is not an item: the step has no `each`")
        error, reason = item.get("error"), item.get("reason")
        yield ItemResult(
            index=index,
            value=item.get("value"),
            error=None if error is None else str(error),
            failure_reason=_REASONS.get(str(reason)),
        )


def value_as(item: ItemResult, kind: Any) -> ItemResult:
    """Return the item with its value as a `kind`. Raises TypeError, and what a model raises."""
    if item.error is not None or kind is None:
        return item
    return ItemResult(index=item.index, value=as_type_of(item.value, kind), attempts=item.attempts)
