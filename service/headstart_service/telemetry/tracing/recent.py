"""Which start made the run of a key, as far as this process has seen it: for links."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from opentelemetry.trace import Link, SpanContext

from ...domain import RunKey

_MOST: Final = 10_000


class RecentStarts:
    """The starts that went through this process last, some 2 MB of them at most."""

    def __init__(self) -> None:
        self._starts: OrderedDict[RunKey, SpanContext] = OrderedDict()

    def note(self, key: RunKey, start: SpanContext) -> None:
        """Remember the start that made the run of this key."""
        self._starts[key] = start
        self._starts.move_to_end(key)
        if len(self._starts) > _MOST:
            self._starts.popitem(last=False)

    def links(self, key: RunKey) -> list[Link]:
        """A link to the start of this key's run, if it is known."""
        start = self._starts.get(key)
        return [] if start is None else [Link(start)]
