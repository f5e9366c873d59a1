"""Compare a store's layout, its partitions and its format, with a process's own.

A run's partition follows from the number of partitions, so two processes with different numbers
would each see a part of the runs. The store remembers its layout in a key of every partition, and
every script that finds another there than its caller's changes nothing. The first partition, which
every layout has, decides; the others are written after it.

A process compares the layout at its start and every few seconds (`LayoutWatch`). Where it differs
the process is not ready: it serves no call and takes no job. Its log and /readyz give both layouts
and the cure. The first partition notes which processes are live, so that no store is moved under
them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, Final, Self

from ..domain.errors import LayoutMismatch, StoreUnavailable
from .batches import answered
from .connect import Client, database_of
from .keys import DEFAULT_PREFIX, Installation, PartitionKeys

log = logging.getLogger(__name__)

FORMAT: Final = 4
"""The format of records, sets and jobs. A change that older code cannot read makes it another."""
LIVE_FOR: Final = 10.0
"""Seconds that a process counts as live after it was last seen: also one that was killed."""
_BUDGET: Final = 2.0
_UNCLAIMED: Final = 2.0
"""Seconds for which a process that had found another layout leaves an empty store to others."""
_CANCEL_AGAIN: Final = 0.2
_LUA = files(__package__) / "lua"


@dataclass(frozen=True, slots=True)
class Layout:
    """A store's layout. Its text is the value of the layout's key."""

    partitions: int
    format: int = FORMAT
    target: int | None = None
    """The number of partitions to which the store is being moved."""

    def __str__(self) -> str:
        moving = f" moving-to={self.target}" if self.target else ""
        return f"format={self.format} partitions={self.partitions}{moving}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the layout of this text. Raises ValueError."""
        fields = dict(field.split("=", 1) for field in text.split())
        numbers = {name: int(number) for name, number in fields.items()}
        try:
            target = numbers.get("moving-to")
            return cls(numbers["partitions"], numbers["format"], target)
        except KeyError as error:
            raise ValueError(f"no {error} in {text!r}") from error

    @property
    def final(self) -> Self:
        """The layout when the move is over."""
        return replace(self, partitions=self.target or self.partitions, target=None)


def difference(found: str, own: Layout) -> str:
    """Return how the layout `found` differs from a process's own, and what to do."""
    try:
        theirs = Layout.parse(found)
    except ValueError:
        return (
            f"the store's layout is {found!r:.100}, which this version cannot read: it reads {own}"
        )
    if theirs.format != own.format:
        return (
            f"the store's format is {theirs.format}, this version's {own.format}: run the version "
            "that wrote the store, or empty the store"
        )
    if theirs.target:
        return (
            f"the store is being moved from {theirs.partitions} to {theirs.target} partitions, "
            f"this process has HEADSTART_PARTITIONS={own.partitions}: wait for the move; if it was "
            f"killed, finish it with `headstart repartition --to {theirs.target}`"
        )
    return (
        f"the store has {theirs.partitions} partitions, this process has HEADSTART_PARTITIONS="
        f"{own.partitions}: set HEADSTART_PARTITIONS={theirs.partitions}, or end all processes of "
        f"the store and move it with `headstart repartition --to {own.partitions}`"
    )


async def stored_layout(client: Client, prefix: str = DEFAULT_PREFIX) -> str | None:
    """Return the text of the store's layout; None if it has none. Raises StoreUnavailable."""
    try:
        found: Any = await answered(
            _get(client, PartitionKeys(0, Installation(prefix)).layout), _BUDGET
        )
    except StoreUnavailable as error:
        if str(error.__cause__).startswith("WRONGTYPE"):  # a key of another type
            return None
        raise
    return None if found is None else found.decode(errors="replace")


async def _get(client: Client, key: str) -> Any:
    return await client.get(key)


def script(client: Client, name: str) -> Any:
    """Return a script that runs with any layout."""
    return client.register_script((_LUA / f"{name}.lua").read_text(encoding="utf-8"))


class StoreLayout:
    """Compares a process's own layout with the store's. Satisfies `batches.Agreement`."""

    def __init__(self, client: Client, partitions: int, prefix: str = DEFAULT_PREFIX) -> None:
        """Read and write nothing yet."""
        self.own = Layout(partitions)
        self.prefix = prefix
        installation = Installation(prefix, database_of(client))
        self._first, *self._others = (PartitionKeys(p, installation) for p in range(partitions))
        self.token = str(self.own)
        self._client = client
        self._compare = script(client, "layout")
        self._differs = False
        self._empty_since: float | None = None

    @property
    def client(self) -> Client:
        """The client that reaches the store."""
        return self._client

    def mismatch(self, found: str) -> LayoutMismatch:
        """Return the error for a store that has the layout `found`."""
        self._differs = True
        return LayoutMismatch(difference(found, self.own))

    async def agree(self, keys: PartitionKeys) -> None:
        """Compare the first partition's layout, then this one's; write it where there is none.

        Raises LayoutMismatch and StoreUnavailable.
        """
        await self._agree(self._first)
        if keys.partition:
            await self._agree(keys)

    async def agree_all(self, process: str, ttl: float) -> bool:
        """Compare every partition's layout, and note that the process is live for `ttl` seconds.

        Returns whether it was live until now; if not, the store may have been moved, and moved
        back, meanwhile. Raises LayoutMismatch and StoreUnavailable.
        """
        was_live = await self._agree(self._first, process, ttl)
        await asyncio.gather(*(self._agree(keys) for keys in self._others))
        self._differs = False
        return was_live

    async def live(self) -> list[str]:
        """Return the names of up to 100 live processes. Raises StoreUnavailable."""
        return (await self._look(self._first, create=False))[2]

    async def withdraw(self, process: str) -> None:
        """Remove the process from the live ones. Raises StoreUnavailable."""
        await self._look(self._first, create=False, process=process)

    async def _agree(self, keys: PartitionKeys, process: str = "", ttl: float = 0.0) -> bool:
        found, was_live, _ = await self._look(
            keys, create=self._may_write(), process=process, ttl=ttl
        )
        if found == self.token:
            self._empty_since = None
            return was_live
        if found:
            self._empty_since = None
            raise self.mismatch(found)
        self._empty_since = self._empty_since or asyncio.get_running_loop().time()
        raise LayoutMismatch("the store was emptied: its other processes come first")

    def _may_write(self) -> bool:
        """Whether a layout may be written where there is none.

        After a flush the processes that have served go first: one that differed waits for them.
        """
        waited = asyncio.get_running_loop().time() - self._empty_since if self._empty_since else 0.0
        return not self._differs or waited > _UNCLAIMED

    async def _look(
        self, keys: PartitionKeys, *, create: bool, process: str = "", ttl: float = 0.0
    ) -> tuple[str, bool, list[str]]:
        call: Awaitable[Any] = self._compare(
            keys=[keys.layout, keys.processes],
            args=[self.token, int(create), process, round(ttl * 1e6), keys.resets],
        )
        found, was_live, *names = await answered(call, _BUDGET)
        texts = [name.decode(errors="replace") for name in names]
        return found.decode(errors="replace"), bool(was_live), texts


class LayoutWatch:
    """Compares the layout again and again, and keeps this process among those that are live."""

    def __init__(
        self,
        layout: StoreLayout,
        process: str,
        *,
        every: float,
        adopt: Callable[[], Awaitable[None]],
        differs: Callable[[], None],
        agrees: Callable[[], None] = lambda: None,
    ) -> None:
        """Compare after every `every` seconds; `process` names this one.

        `adopt` moves a store in which nothing is kept and that no process uses, if it can.
        `differs` is called when the layouts have become different, `agrees` when they are the same.
        Both are called for a process that was not live for a while, which a suspended one is not.
        """
        self._layout = layout
        self._process = process
        self._every = every
        self._adopt = adopt
        self._differs = differs
        self._agrees = agrees
        self._same = asyncio.Event()
        self.problem = ""
        """How the layouts differ, and what to do; empty while they do not."""

    async def agreed(self) -> None:
        """Return when the layouts were the same for the first time."""
        await self._same.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch while the context is open."""
        watching = asyncio.create_task(self._watch(), name="layout")
        try:
            yield
        finally:
            while not watching.done():
                # One cancel is not enough: wait_for of Python 3.11, which redis-py uses, may
                # swallow it.
                watching.cancel()
                await asyncio.wait({watching}, timeout=_CANCEL_AGAIN)
            with suppress(StoreUnavailable):
                await self._layout.withdraw(self._process)

    async def _watch(self) -> None:
        while True:
            try:
                await self._look()
            except LayoutMismatch as error:
                self._note(str(error))
            except StoreUnavailable as error:
                log.debug("layout: %s", error)  # readiness checks the store by itself
            await asyncio.sleep(self._every)

    async def _look(self) -> None:
        try:
            was_live = await self._layout.agree_all(self._process, LIVE_FOR)
        except LayoutMismatch as error:
            self._note(str(error))
            await self._adopt()
            was_live = await self._layout.agree_all(self._process, LIVE_FOR)
        self._same.set()
        if self.problem:
            log.info("the store's layout is this process's: %s", self._layout.own)
            self.problem = ""
        elif was_live:
            return
        else:
            self._differs()
        self._agrees()

    def _note(self, problem: str) -> None:
        if problem != self.problem:
            log.error("not ready: %s", problem)
            self.problem = problem
            self._differs()
