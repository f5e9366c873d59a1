"""List and count runs over all partitions."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial

from ..base.metric_labels import Eviction
from ..domain import RunKey, RunSummary, Stats, Status
from .accounting import ALL, book_from, ledger_from
from .batches import Reply
from .keys import PartitionKeys, member, partition_of
from .offers import pipeline_of
from .records import decode_summary
from .scripts import Scripts
from .store_observer import StoreObserver

log = logging.getLogger(__name__)

_AGAIN = 0
"""The reply of a script that had more to sweep than one call may."""


class RunListing:
    """Lists and counts the runs of a store."""

    def __init__(
        self, scripts: Scripts, partitions: Sequence[PartitionKeys], observer: StoreObserver
    ) -> None:
        """List and count the runs of these partitions, which are all of the store's."""
        self._scripts = scripts
        self._partitions = partitions
        self._observer = observer

    async def page(
        self,
        namespace: str,
        statuses: Sequence[Status],
        after: RunKey | None,
        limit: int,
        *,
        quiet: bool = False,
    ) -> list[RunSummary]:
        """Return up to `limit` runs behind `after`, by partition and name; no namespace means all.

        A damaged record is left out. It is counted and logged unless `quiet`, for repeated lists.
        """
        page: list[RunSummary] = []
        first = partition_of(after, len(self._partitions)) if after else 0
        for keys in self._partitions[first:]:
            low: str | bytes
            low, high = _range(namespace)
            # A caller may invent a position in front of its namespace. It must not get the names
            # of other namespaces that lie between.
            if after and keys.partition == first and _is_behind(after, namespace):
                low = f"({member(after)}"
            wanted = [status.value for status in statuses]
            while missing := limit - len(page):
                rows = await self._scripts.list(
                    keys, None, *wanted, low=low, high=high, limit=missing
                )
                if rows == _AGAIN:
                    continue
                page.extend(run for row in rows if (run := self._listed(row, quiet)))
                if len(rows) < missing:
                    break
                low = b"(" + rows[-1][0]
        return page

    async def stats(self, namespace: str) -> Stats:
        """Return how much is kept and queued; no namespace means all."""
        low, high = _range(namespace)
        counts = dict.fromkeys(Status, 0)
        queued = 0
        oldest = 0.0
        books = []
        unserved: Counter[str] = Counter()
        for keys in self._partitions:
            call = partial(
                self._scripts.stats, keys, None, low=low, high=high, book=namespace or ALL
            )
            while len(reply := await call()) == 1:
                # One call sweeps a bounded number of expired runs, and there are more.
                self._observer.evicted(Eviction.EXPIRED, reply[0])
            *numbers, expired, waits_ms, jobs, left, sums, unsettled = reply
            for name, count in zip(left[::2], left[1::2], strict=True):
                unserved[pipeline_of(name.decode(errors="replace"))] += count
            books.append(book_from(sums, None if namespace else unsettled))
            queued += jobs
            oldest = max(oldest, waits_ms / 1000)
            if expired:
                self._observer.evicted(Eviction.EXPIRED, expired)
            for name, count in zip(numbers[::2], numbers[1::2], strict=True):
                counts[Status(name.decode())] += count
        kept = {status: count for status, count in counts.items() if count}
        return Stats(kept, queued, oldest, ledger_from(books), unserved)

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


def _is_behind(after: RunKey, namespace: str) -> bool:
    """Whether `after` is in or behind the range of the namespace, in Redis' order of bytes."""
    return not namespace or member(after).encode() >= f"{namespace}:".encode()


def _range(namespace: str) -> tuple[str, str]:
    """Return the lexicographic range of a namespace's members; ';' follows ':'."""
    return (f"[{namespace}:", f"({namespace};") if namespace else ("-", "+")
