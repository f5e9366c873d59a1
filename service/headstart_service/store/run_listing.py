"""List and count runs over all partitions."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial

from ..base.metric_labels import Eviction
from ..domain import PoolStats, RunKey, RunsPage, RunSummary, Stats, Status
from .accounting import ALL, book_from, ledger_from
from .batches import Reply
from .keys import PartitionKeys, encoded, from_member, member, partition_of
from .offers import pipeline_of
from .provider_scripts import ProviderScripts
from .provider_states import provider_states
from .records import decode_summary
from .scripts import Scripts
from .store_observer import StoreObserver

log = logging.getLogger(__name__)

PASSED = 500
"""Runs that a call compares for a page of one pipeline: Redis serves no other client for 5 ms."""
COMPARED = 10_000
"""Runs that a page of one pipeline compares at most, and some more: a tenth of a second."""
_FIRST, _LAST = b"-", b"+"
_AGAIN = 0
"""The reply of a script that had more to sweep than one call may."""


class RunListing:
    """Lists and counts the runs of a store."""

    def __init__(
        self, scripts: Scripts, partitions: Sequence[PartitionKeys], observer: StoreObserver
    ) -> None:
        """List and count the runs of these partitions, which are all of the store's."""
        self._scripts = scripts
        self._providers = ProviderScripts(scripts.batches)
        self._partitions = partitions
        self._observer = observer

    async def page(
        self,
        namespace: str,
        statuses: Sequence[Status],
        after: RunKey | None,
        limit: int,
        *,
        key_prefix: str = "",
        pipeline: str = "",
        quiet: bool = False,
    ) -> RunsPage:
        """Return up to `limit` runs behind `after`, by partition and name; no namespace means all.

        A `key_prefix` needs a namespace. With a `pipeline` the page may be short, because it
        compares a bounded number of runs. A damaged record is left out. It is counted and logged
        unless `quiet`, for repeated lists.
        """
        page: list[RunSummary] = []
        compared = 0
        last = after
        first = partition_of(after, len(self._partitions)) if after else 0
        wanted = [status.value for status in statuses]
        for keys in self._partitions[first:]:
            low, high = _range(namespace, key_prefix)
            # A caller may invent a position in front of the range. It must not get the names of
            # others that lie between.
            if after and keys.partition == first and _is_behind(after, low):
                low = b"(" + member(after).encode()
            more = 1
            while more:
                # One run more than fits the page proves that there is a next page.
                missing = limit + 1 - len(page)
                if not missing or compared >= COMPARED:
                    return _cut(page, limit, last)
                reply = await self._scripts.list(
                    keys,
                    None,
                    *wanted,
                    low=low,
                    high=high,
                    limit=missing,
                    most=PASSED if pipeline else missing,
                    pipeline=pipeline,
                )
                if reply == _AGAIN:
                    continue
                more, name, number, *rows = reply
                page.extend(run for row in rows if (run := self._listed(row, quiet)))
                low, last = b"(" + name, _position(name) or last
                if pipeline:
                    compared += number
        return _cut(page, limit, None)

    async def stats(self, namespace: str) -> Stats:
        """Return how much is kept and queued; no namespace means all."""
        low, high = _range(namespace)
        counts = dict.fromkeys(Status, 0)
        queued = 0
        oldest = 0.0
        books = []
        unserved: Counter[str] = Counter()
        pools: dict[str, PoolStats] = {}
        pending: Counter[str] = Counter()
        step_runs = [0, 0]
        for keys in self._partitions:
            call = partial(
                self._scripts.stats, keys, None, low=low, high=high, book=encoded(namespace) or ALL
            )
            while len(reply := await call()) == 1:
                # One call sweeps a bounded number of expired runs, and there are more.
                self._observer.evicted(Eviction.EXPIRED, reply[0])
            *numbers, expired, waits_ms, jobs, left, in_pools, sums, unsettled, waiting, steps = (
                reply
            )
            step_runs = [sum(pair) for pair in zip(step_runs, steps, strict=True)]
            _add(pools, in_pools)
            for name, count in zip(left[::2], left[1::2], strict=True):
                unserved[pipeline_of(name.decode(errors="replace"))] += count
            for name, count in zip(waiting[::2], waiting[1::2], strict=True):
                pending[from_member(name.decode(errors="replace")).namespace] += count
            books.append(book_from(sums, None if namespace else unsettled))
            queued += jobs
            oldest = max(oldest, waits_ms / 1000)
            if expired:
                self._observer.evicted(Eviction.EXPIRED, expired)
            for name, count in zip(numbers[::2], numbers[1::2], strict=True):
                counts[Status(name.decode())] += count
        kept = {status: count for status, count in counts.items() if count}
        providers, over_budget = await provider_states(self._providers, self._partitions[0])
        return Stats(
            kept,
            queued,
            oldest,
            ledger_from(books),
            unserved,
            pools=pools,
            pending=pending,
            providers=providers,
            over_budget=over_budget,
            pending_step_runs=step_runs[0],
            running_step_runs=step_runs[1],
        )

    def _listed(self, row: Reply, quiet: bool) -> RunSummary | None:  # noqa: FBT001  # of our own
        """Return a run of a row of list.lua; for a damaged record log it and return None."""
        try:
            return decode_summary(*row)
        except (ValueError, TypeError):
            if quiet:
                return None
            self._observer.damaged()
            log.error("left out of a list: the record of %r is damaged or gone", row[0])  # noqa: TRY400
            return None


def _cut(page: list[RunSummary], limit: int, last: RunKey | None) -> RunsPage:
    """Return at most `limit` runs of the page; `last` is where it ends if they all fit."""
    if len(page) > limit:
        return RunsPage(page[:limit], page[limit - 1].key)
    return RunsPage(page, last)


def _position(name: bytes) -> RunKey | None:
    """Return the run of this member; None for a name that no run of ours has."""
    try:
        found = from_member(name.decode())
    except UnicodeDecodeError:
        return None
    return None if found.violations() else found


def _is_behind(after: RunKey, low: bytes) -> bool:
    """Whether `after` is in or behind the range that begins so, in Redis' order of bytes."""
    return low == _FIRST or member(after).encode() >= low[1:]


def _range(namespace: str, key_prefix: str = "") -> tuple[bytes, bytes]:
    """Return the lexicographic range of the members of a namespace whose keys begin so."""
    if not namespace:
        return _FIRST, _LAST
    low = member(RunKey(namespace, key_prefix)).encode()
    # The last byte is at most 0xF4, or the colon behind the namespace.
    return b"[" + low, b"(" + low[:-1] + bytes([low[-1] + 1])


def _add(pools: dict[str, PoolStats], reply: Reply) -> None:
    """Add a partition's figures; a worker serves its pool in all partitions."""
    for name, queued, running, workers, waited_us in zip(*[iter(reply)] * 5, strict=True):
        pool = name.decode(errors="replace")
        before = pools.get(pool, PoolStats())
        pools[pool] = PoolStats(
            before.queued + queued,
            before.running + running,
            max(before.workers, workers),
            max(before.oldest_wait, waited_us / 1e6),
        )
