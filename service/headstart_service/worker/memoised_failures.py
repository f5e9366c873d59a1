"""Remembers failures of memoised steps for a while (negative caching), beside their results."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from ..domain import FailureReason, digest
from ..pipeline.step import Step
from .ports import MemoStore

log = logging.getLogger(__name__)

_LOCAL: Final = frozenset(
    {
        FailureReason.BLOCKED,
        FailureReason.OVER_BUDGET,
        FailureReason.QUEUE_TIMED_OUT,
        FailureReason.WORKER_LOST,
    }
)
"""What another worker, or the same one a moment later, need not meet."""


class MemoisedFailure(NamedTuple):
    """A failure of an earlier run."""

    error: str
    failure_reason: FailureReason


async def failure_get(
    memos: MemoStore, namespace: str, step: Step, memo: str
) -> MemoisedFailure | None:
    """Return the failure that is remembered under a step's memo, if it remembers any."""
    if step.memo_failures is None:
        return None
    text = await memos.memo_get(namespace, _name(memo))
    if text is None:
        return None
    try:
        kept: Mapping[str, str] = json.loads(text)
        return MemoisedFailure(kept["error"], FailureReason(kept["reason"]))
    except (ValueError, LookupError, TypeError) as error:
        log.warning("a failure of %s is left: %s", step.name, type(error).__name__)
        return None


async def failure_put(
    memos: MemoStore, namespace: str, step: Step, memo: str, failure: MemoisedFailure
) -> None:
    """Remember a failure for as long as the step says."""
    if step.memo_failures is None or failure.failure_reason in _LOCAL:
        return
    kept = {"error": failure.error, "reason": failure.failure_reason.value}
    await memos.memo_put(namespace, _name(memo), json.dumps(kept).encode(), step.memo_failures)


def _name(memo: str) -> str:
    return digest(["failure", memo])
