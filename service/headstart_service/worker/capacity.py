"""Slots: how many runs a worker has room for, and how many of them compute."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from .occupancy import Occupancy

_BURST: Final = 64
"""Runs for which room is taken at once, at most."""
_MIB: Final = 1024 * 1024
_MOST_BYTES: Final = 256 * _MIB
"""Inputs and results of the runs that a worker holds, beyond which it begins none."""
_FEWER_BYTES: Final = 3 * _MOST_BYTES // 4
"""Those with which it begins runs again."""

log = logging.getLogger(__name__)


class _Room:
    """Places that are taken in the order in which they are asked for."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._asking: deque[asyncio.Future[None]] = deque()

    @property
    def short(self) -> bool:
        """Whether no place is free, or others already wait for one."""
        while self._asking and self._asking[0].done():  # it was cancelled
            self._asking.popleft()
        return self._free <= 0 or bool(self._asking)

    async def take(self) -> None:
        """Wait for a place and take it."""
        if not self.short:
            self._free -= 1
            return
        granted = asyncio.get_running_loop().create_future()
        self._asking.append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if not granted.cancelled():
                self.free()
            raise

    def take_at_once(self) -> None:
        """Take a place, if need be one that does not exist: new ones wait until it is free."""
        self._free -= 1

    def free(self) -> None:
        """Free a place."""
        self._free += 1
        while self._free > 0 and self._asking:
            granted = self._asking.popleft()
            if not granted.done():
                self._free -= 1
                granted.set_result(None)


class Slots:
    """Counts the runs that a worker has room for: all that it holds, and those that compute.

    A run that only waits for others leaves its slot, and takes one again without waiting: it is
    older than what waits for slots.
    """

    def __init__(self, computing: int, held: int) -> None:
        """Have room for `held` runs, of which so many have slots for computing."""
        self._most = held
        self._computing = _Room(computing)
        self._held = _Room(held)
        self._bytes = 0
        self._light = asyncio.Event()
        self._light.set()

    @property
    def short(self) -> bool:
        """Whether there is no room for a new run, or others already wait for it."""
        return self._held.short or self._computing.short or not self._light.is_set()

    async def take(self) -> None:
        """Wait for room for a new run and take it."""
        await self._light.wait()
        await self._held.take()
        try:
            await self._computing.take()
        except BaseException:
            self._held.free()
            raise

    async def take_free(self) -> int:
        """Take at most a burst of the room that no other task waits for. Returns for how many."""
        taken = 0
        while taken < _BURST and not self.short:
            await self.take()
            taken += 1
        return taken

    def give_back(self, count: int = 1) -> None:
        """Free the room that was taken for so many runs which have not begun."""
        for _ in range(count):
            self._computing.free()
            self._held.free()

    def occupancy(self) -> Occupancy:
        """Return what a run occupies that has taken room; `end` frees it."""
        return Occupancy(self._computing.take_at_once, self._computing.free, self._weigh)

    def end(self, occupancy: Occupancy) -> None:
        """Free the room of a run that has ended."""
        occupancy.end()
        self._held.free()

    async def take_all(self) -> None:
        """Take the whole room, as soon as the runs in it have ended. One task at a time may."""
        taken = 0
        try:
            while taken < self._most:
                await self._held.take()
                taken += 1
        except BaseException:
            self._free_held(taken)
            raise

    def give_back_all(self) -> None:
        """Free what `take_all` took."""
        self._free_held(self._most)

    def _free_held(self, count: int) -> None:
        for _ in range(count):
            self._held.free()

    def _weigh(self, size: int) -> None:
        self._bytes += size
        light = self._light.is_set()
        if light and self._bytes > _MOST_BYTES:
            self._light.clear()
            log.warning(
                "no more runs begin: those that this worker holds keep %d MiB of inputs and "
                "results, and %d MiB are allowed",
                *(self._bytes // _MIB, _MOST_BYTES // _MIB),
            )
        elif not light and self._bytes <= _FEWER_BYTES:
            self._light.set()
            log.info("runs begin again")
