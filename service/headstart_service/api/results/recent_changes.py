"""Whether a run was outdated since a moment: for calls that read it meanwhile."""

from __future__ import annotations

from collections import OrderedDict

from ...domain import RunKey

_KEPT = 4096


class Recent:
    """Keeps the keys that were announced or read lately, each with the moment of it.

    A moment is a number that grows with every note. For a moment before the oldest one that is
    kept, the answer is yes.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self.now = 0
        self._kept = kept
        self._announced: OrderedDict[RunKey, int] = OrderedDict()
        self._read: OrderedDict[RunKey, tuple[int, str]] = OrderedDict()
        """When which run of a key was read first."""
        self._complete_since = 0

    def note(self, key: RunKey) -> None:
        """Note an announcement of this run."""
        self.now += 1
        self._announced[key] = self.now
        self._announced.move_to_end(key)
        if len(self._announced) > self._kept:
            self._complete_since = max(self._complete_since, self._announced.popitem(last=False)[1])

    def note_read(self, key: RunKey, run: str, moment: int) -> bool:
        """Note that this run was read; return whether it is the only or the latest one.

        The read began at that moment. If another run was read first since then, either may be the
        later one.
        """
        known = self._read.get(key)
        if known is not None and known[1] == run:
            return True
        self.now += 1
        self._read[key] = (self.now, run)
        self._read.move_to_end(key)
        if len(self._read) > self._kept:
            self._complete_since = max(self._complete_since, self._read.popitem(last=False)[1][0])
        return known is None or known[0] <= moment

    def forget(self) -> None:
        """Note that announcements of any run may be lost."""
        self.now += 1
        self._announced.clear()
        self._read.clear()
        self._complete_since = self.now

    def since(self, key: RunKey, moment: int, run: str) -> bool:
        """Return whether this run may have been outdated after that moment.

        So it is if the key was announced, or another run of the key was read first.
        """
        if moment < self._complete_since or self._announced.get(key, 0) > moment:
            return True
        read_at, other = self._read.get(key, (0, run))
        return read_at > moment and other != run
