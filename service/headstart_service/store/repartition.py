"""Move a store to another number of partitions, while none of its processes is live.

Every partition is marked first; from then on its scripts refuse all processes of the old layout.
Each run that belongs elsewhere is written there, then removed where it was. Each of these is one
script, which may be repeated, and which is refused once the store has its new layout. So a move
that was killed at any moment is finished by running it again, and two at a time do no harm.

Memos are not moved: they are computed anew, and expire.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ..domain import RunKey
from ..domain.errors import LayoutMismatch, StartupError, StoreUnavailable
from .batches import Reply, ScriptBatches, answered
from .connect import Client, database_of
from .keys import DEFAULT_PREFIX, Installation, PartitionKeys, from_member, partition_of
from .layout import LIVE_FOR, Layout, difference, script, stored_layout
from .scripts import SOURCES, Scripts

log = logging.getLogger(__name__)

_BUDGET: Final = 10.0
_PATIENCE: Final = 60.0
"""Seconds for which calls to a store that is away are repeated."""
_PAUSE: Final = 0.2
CHUNK: Final = 256
"""Runs that are moved at once, and fields of a ledger."""
_LARGEST_CHUNK: Final = 16 << 20
"""About how many bytes of runs are moved at once."""

Progress = Callable[["Moved"], None]


@dataclass(slots=True)
class Moved:
    """The progress of a move."""

    runs: int = 0
    """How many the store has."""
    seen: int = 0
    """Of these, how many are where they belong by now."""
    moved: int = 0
    damaged: int = 0
    """Runs whose records could not be read, and were forgotten."""


class StoreInUse(StartupError):
    """The store cannot be moved: processes use it."""


class _Moving:
    """Expects the layout of the move itself. Satisfies `batches.Agreement`."""

    def __init__(self, layout: Layout) -> None:
        self.token = str(layout)
        self._layout = layout

    async def agree(self, keys: PartitionKeys) -> None:
        """Refuse: a store that was emptied meanwhile no longer belongs to this move."""
        raise LayoutMismatch(f"partition {keys.partition} was emptied while it was moved")

    def mismatch(self, found: str) -> LayoutMismatch:
        """Return the error for a store that another move has finished, or that processes use."""
        return LayoutMismatch(difference(found, self._layout))


class Repartition:
    """One move of a store."""

    def __init__(
        self,
        client: Client,
        old: Layout,
        target: int,
        progress: Progress,
        prefix: str,
        *,
        chunk: int = CHUNK,
    ) -> None:
        """Move the store of this prefix from the layout `old` to `target` partitions.

        Moves up to `chunk` runs, or fields of a ledger, at once.
        """
        installation = Installation(prefix, database_of(client))
        self._client = client
        self._old = Layout(old.partitions, old.format)
        self._target = Layout(target, old.format)
        self._moving = Layout(old.partitions, old.format, target)
        self._all = [PartitionKeys(p, installation) for p in range(max(old.partitions, target))]
        self._batches = ScriptBatches(
            client, SOURCES, budget=_BUDGET, connections=4, layout=_Moving(self._moving)
        )
        self._scripts = Scripts(self._batches)
        self._progress = progress
        self._done = Moved()
        self._most = chunk
        self._chunk = chunk

    async def run(self) -> Moved:
        """Move everything, or finish what another has begun.

        Raises StoreInUse, LayoutMismatch when another move has changed the layout, and
        StoreUnavailable when the store does not answer for a minute.
        """
        try:
            if await self._begin():
                await self._move_all()
            await self._end()
        except LayoutMismatch:
            if not await self._ended_by_another():
                raise
        finally:
            await self._batches.aclose()
        return self._done

    async def _ended_by_another(self) -> bool:
        """Wait for the end of the same move by another process; False when there is none."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + _BUDGET
        # The last write of a move is the layout of partition 0.
        while (found := await _ask(partial(self._client.get, self._all[0].layout))) is not None:
            if found == str(self._target).encode():
                return True
            if found != str(self._moving).encode() or clock() > deadline:
                return False
            await asyncio.sleep(_PAUSE)
        return False

    async def _move_all(self) -> None:
        for keys in self._all:
            await self._sweep(keys)
            self._done.runs += await _ask(partial(self._client.zcard, keys.expiry))
        for keys in self._all:
            await self._move_from(keys)
        for keys in self._all[self._target.partitions :]:
            await self._move_sums(keys)

    async def _begin(self) -> bool:
        """Mark every partition; False when everything was moved before."""
        begin = script(self._client, "move_begin")
        layouts = [str(self._old), str(self._moving), str(self._target)]
        moved = False
        for keys in self._all:
            reply = await _ask(partial(begin, keys=[keys.layout, keys.processes], args=layouts))
            what, *rest = (text.decode(errors="replace") for text in reply)
            if what == "live":
                raise StoreInUse(
                    f"{len(rest)} processes use the store: {', '.join(rest)}; end them first (one "
                    f"that was killed counts for {LIVE_FOR:.0f} s more)"
                )
            if what == "other":
                raise LayoutMismatch(difference(rest[0], self._target))
            moved = moved or what == "final"
        return not moved

    async def _sweep(self, keys: PartitionKeys) -> None:
        more = 1
        while more:
            _, more, _ = await _patient(partial(self._scripts.sweep, keys, None))

    async def _move_from(self, keys: PartitionKeys) -> None:
        """Move runs that belong to other partitions out of this one."""
        staying = 0
        while True:
            last = staying + self._chunk - 1
            members: Sequence[bytes] = await _ask(
                partial(self._client.zrange, keys.expiry, staying, last)
            )
            if not members:
                return
            away = [run for member in members if (run := self._run_to_move(member, keys))]
            await self._move(keys, away)
            # Moved members have left the set, so the next members have their indexes.
            staying += len(members) - len(away)
            # The loop meets runs that moved to a later partition again there.
            later = sum(self._home(run) > keys.partition for run in away)
            self._done.seen += len(members) - later
            self._progress(self._done)

    def _run_to_move(self, member: bytes, keys: PartitionKeys) -> RunKey | None:
        """Return the run of this name; None if it stays in its partition."""
        try:
            run = from_member(member.decode())
        except ValueError:
            log.warning("not a run of ours stays where it is: %.200r", member)
            return None
        return None if self._home(run) == keys.partition else run

    def _home(self, run: RunKey) -> int:
        return partition_of(run, self._target.partitions)

    async def _move(self, keys: PartitionKeys, runs: Sequence[RunKey]) -> None:
        scripts = self._scripts
        found = await _all(partial(scripts.move_out, keys, run) for run in runs)
        whole = {run: reply for run, reply in zip(runs, found, strict=True) if len(reply) > 1}
        self._done.damaged += sum(len(reply) == 1 for reply in found)
        sizes = [sum(map(len, reply)) for reply in whole.values()]
        if sizes:
            self._chunk = max(1, min(self._most, _LARGEST_CHUNK // max(sizes)))
        await _all(partial(self._move_in, run, reply) for run, reply in whole.items())
        # Delete a run here only after its copy is complete.
        await _all(partial(scripts.move_off, keys, run) for run in whole)
        self._done.moved += len(whole)

    async def _move_in(self, run: RunKey, reply: Sequence[bytes]) -> Reply:
        score, unread_since, read_since, line, *fields = reply
        return await self._scripts.move_in(
            self._all[self._home(run)],
            run,
            *fields,
            score=score,
            unread_since=unread_since,
            read_since=read_since,
            line=line,
        )

    async def _move_sums(self, keys: PartitionKeys) -> None:
        """Add a given up partition's ledger to that of one that stays."""
        heir = self._all[keys.partition % self._target.partitions]
        reply: Sequence[bytes] = await _patient(partial(self._scripts.move_sums, keys, None))
        sums = sorted(zip(reply[::2], reply[1::2], strict=True))
        for first in range(0, len(sums), self._most):
            given = [text for pair in sums[first : first + self._most] for text in pair]
            mark = f"{keys.partition}/{first}"
            await _patient(partial(self._scripts.move_sums_in, heir, None, *given, mark=mark))

    async def _end(self) -> None:
        """Remove abandoned partitions, then admit processes of the new layout, partition 0 last."""
        count, final = self._target.partitions, str(self._target)
        for keys in (*self._all[count:], *reversed(self._all[:count])):
            kept = int(keys.partition < count)
            try:
                await _patient(partial(self._scripts.move_end, keys, None, kept=kept, final=final))
            except LayoutMismatch:
                found = await _ask(partial(self._client.get, keys.layout))
                if found != final.encode():  # else another that moves has been here
                    raise


async def _ask(call: Callable[[], Any]) -> Any:
    """Return the reply to a command, or to a script that runs with any layout."""
    return await _patient(lambda: answered(call(), _BUDGET))


async def _all(calls: Iterable[Callable[[], Awaitable[Reply]]]) -> list[Reply]:
    return await asyncio.gather(*(_patient(call) for call in calls))


async def _patient(call: Callable[[], Awaitable[Any]]) -> Any:
    """Return the reply after up to a minute of tries; repeating these scripts does no harm."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + _PATIENCE
    while True:
        try:
            return await call()
        except LayoutMismatch:
            raise
        except StoreUnavailable:
            if clock() > deadline:
                raise
        await asyncio.sleep(_PAUSE)


async def repartition(
    client: Client,
    target: int,
    progress: Progress,
    prefix: str = DEFAULT_PREFIX,
    *,
    chunk: int = CHUNK,
) -> Moved | None:
    """Move the store of this prefix to `target` partitions; None when there is nothing to move.

    Raises as `Repartition.run`, and StartupError for a store that cannot be moved there.
    """
    found = await stored_layout(client, prefix)
    if found is None:
        return None
    try:
        old = Layout.parse(found)
    except ValueError:
        old = Layout(0, 0)
    if old.format != Layout(target).format or old.target not in (None, target):
        raise StartupError(difference(found, Layout(target)))
    if old == Layout(target):
        return None
    return await Repartition(client, old, target, progress, prefix, chunk=chunk).run()


async def adopt_empty(client: Client, own: Layout, prefix: str = DEFAULT_PREFIX) -> None:
    """Move a store in which nothing is kept, and that no process uses, to a process's own layout.

    Changes nothing for any other. Raises StoreUnavailable and LayoutMismatch.
    """
    found = await stored_layout(client, prefix)
    try:
        old = Layout.parse(found or "")
    except ValueError:
        return
    if old.format != own.format or old.target not in (None, own.partitions):
        return
    for partition in range(max(old.partitions, own.partitions)):
        expiry = PartitionKeys(partition, Installation(prefix)).expiry
        kept: Any = await answered(_count(client, expiry), _BUDGET)
        if kept:
            return
    try:
        await Repartition(client, old, own.partitions, lambda _: None, prefix).run()
    except StoreInUse:
        return
    log.info("nothing was kept: the store has %d partitions now", own.partitions)


async def _count(client: Client, expiry: str) -> int:
    """Return how many runs of the set have not expired."""
    kept: int = await client.zcount(expiry, f"({time.time() * 1e6:.0f}", "+inf")
    return kept
