"""Whether a run was announced since a moment: for calls that read it meanwhile."""

from __future__ import annotations

from collections import OrderedDict

from ...domain import RunKey

_KEPT = 4096


class Recent:
    """Keeps the runs that were announced lately, each with the moment of its last announcement.

    A moment is a number that grows with every announcement. For a moment before the oldest one
    that is kept, the answer is yes.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self.now = 0
        self._kept = kept
        self._announced: OrderedDict[RunKey, int] = OrderedDict()
        self._complete_since = 0

    def note(self, key: RunKey) -> None:
        """Note an announcement of this run."""
        self.now += 1
        self._announced[key] = self.now
        self._announced.move_to_end(key)
        if len(self._announced) > self._kept:
            self._complete_since = self._announced.popitem(last=False)[1]

    def forget(self) -> None:
        """Note that announcements of any run may be lost."""
        self.now += 1
        self._announced.clear()
        self._complete_since = self.now

    def since(self, key: RunKey, moment: int) -> bool:
        """Return whether this run may have been announced after that moment."""
        return moment < self._complete_since or self._announced.get(key, 0) > moment
