"""Threads for the engine's own work.

Those of `asyncio.to_thread` are the steps' too: some that never end there would keep all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

_THREADS: Final = ThreadPoolExecutor(4, thread_name_prefix="engine")


async def in_own_thread(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Call the function in a thread that no step can keep; returns or raises what it does."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_THREADS, partial(function, *arguments, **named))
