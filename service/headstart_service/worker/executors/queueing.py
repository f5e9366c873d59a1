"""Waits for a free thread or process; that time is not the step's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...domain import FailureReason
from ...domain.errors import StepFailed


@asynccontextmanager
async def queueing(limit: float, what: str) -> AsyncIterator[None]:
    """Let the body wait for a free `what`, `limit` seconds at most. Raises StepFailed then.

    It is final: another try would wait behind the same work.
    """
    timeout = asyncio.timeout(limit)
    try:
        async with timeout:
            yield
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise StepFailed(
            f"waited {limit:g} s for a free {what}",
            retry=False,
            failure_reason=FailureReason.QUEUE_TIMED_OUT,
        ) from error
