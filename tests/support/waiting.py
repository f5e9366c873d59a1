"""Waiting for something to come true, instead of sleeping for luck."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

# Redis measures ages between whole milliseconds of its own clock, so an age that it takes for
# `t` can be up to this much less by ours.
REDIS_TICK = 0.002

PATIENT = 15.0
"""Seconds that a call may take beyond its wait: on a busy machine a process may stand for some.

For calls whose speed is not what a test is about; the client's own limit is 5 s.
"""


async def wait_until(
    condition: Callable[[], Awaitable[T]] | Callable[[], T], within: float = 20.0
) -> T:
    """The first truthy value of `condition`; AssertionError when there is none in time."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not true within {within} s: {condition}"
        await asyncio.sleep(0.01)
