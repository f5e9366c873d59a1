"""What callers may read of a step that failed, in a form that every record can hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..domain.errors import StepFailed

MAX_REASON: Final = 2_000
"""Characters. Each list and each answer holds the reasons of all its runs."""


def readable(reason: object) -> str:
    """Return the text of a reason, valid Unicode and at most `MAX_REASON` characters."""
    try:
        text = str(reason)
    except Exception as error:  # noqa: BLE001  # an author's own class may do anything
        text = f"{type(reason).__name__}, whose text raises {type(error).__name__}"
    if len(text) > MAX_REASON:
        text = f"{text[: MAX_REASON - 1]}…"
    return text.encode(errors="replace").decode()


def failure_of(error: BaseException) -> StepFailed | None:
    """Return the failure that a step raised on purpose; None when it raised something else.

    A group, as a TaskGroup raises, fails for the first such reason in it. One with `retry=False`
    keeps the step from being tried again.
    """
    if isinstance(error, StepFailed):
        return error
    leaves = list(_leaves(error))
    failures = [leaf for leaf in leaves if isinstance(leaf, StepFailed)]
    if not failures:
        return None
    more = f" (and {len(leaves) - 1} more)" if len(leaves) > 1 else ""
    reason = readable(failures[0])[: MAX_REASON - len(more)]
    return StepFailed(
        reason + more,
        retry=all(each.retry for each in failures),
        failure_reason=failures[0].failure_reason,
        retry_after=max(
            (f.retry_after for f in failures if f.retry_after is not None), default=None
        ),
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
