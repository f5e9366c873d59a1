"""`headstart repartition`: moves a store to another number of partitions."""

from __future__ import annotations

import time
from typing import Final

from ..base import exit_codes
from ..config.settings import Settings
from ..processes.lifecycle import redis_client, redis_url
from ..store.connect import WORKER, check_version
from ..store.repartition import Moved, repartition

_EVERY: Final = 1.0
"""Seconds between two lines of progress."""


async def move(settings: Settings) -> int:
    """Move the store to the partitions of these settings; gives the exit code.

    Raises StartupError where that cannot be, and StoreUnavailable.
    """
    count = settings.partitions
    shown = time.monotonic()

    def show(done: Moved) -> None:
        nonlocal shown
        if time.monotonic() - shown >= _EVERY:
            shown = time.monotonic()
            print(f"{done.seen} of {done.runs} runs, {done.moved} moved", flush=True)

    async with redis_url(settings) as url, redis_client(url, WORKER) as client:
        await check_version(client)
        done = await repartition(client, count, show, settings.prefix)
    if done is None:
        store = f"the store of HEADSTART_PREFIX={settings.prefix}"
        print(f"nothing to move: {store} has {count} partitions, or is empty")
        return exit_codes.DONE
    print(f"partitions: {count} now; runs: {done.runs} kept, {done.moved} of them moved")
    print(f"start processes with HEADSTART_PARTITIONS={count}")
    if done.damaged:
        print(f"{done.damaged} runs were forgotten: their records were damaged")
    return exit_codes.DONE
