"""Whether a run was announced since a moment: for calls that read it meanwhile."""

from __future__ import annotations

from collections import OrderedDict

from ...domain import RunKey

_KEPT = 4096


class Recent:
    """The runs that something was said about lately, each with the moment when it last was.

    A moment is a number that grows with every announcement. Of moments so long ago that it has
    forgotten what came after them, the answer is yes.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self.now = 0
        self._kept = kept
        self._said: OrderedDict[RunKey, int] = OrderedDict()
        self._complete_since = 0

    def note(self, key: RunKey) -> None:
        """Something is said about this run."""
        self.now += 1
        self._said[key] = self.now
        self._said.move_to_end(key)
        if len(self._said) > self._kept:
            self._complete_since = self._said.popitem(last=False)[1]

    def forget(self) -> None:
        """Anything may have been said about any run."""
        self.now += 1
        self._said.clear()
        self._complete_since = self.now

    def since(self, key: RunKey, moment: int) -> bool:
        """Whether something may have been said about this run after that moment."""
        return moment < self._complete_since or self._said.get(key, 0) > moment
