"""Failures grouped by reason: what an operator must see is that 300 runs share one of them."""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, Final

from ..domain import RunKey

_MAX_GROUPS: Final = 128
_MAX_COUNTED: Final = 4096
_LAST: Final = 3
_SHOWN: Final = 300
_IDS: Final = (
    (re.compile(r"\binternal error [0-9a-f]{12}\b"), "internal error <id>"),
    (re.compile(r"\breturned (at least )?[\d,]+ bytes\b"), "returned <size> bytes"),
    (re.compile(r"\bwould have [\d,]+;"), "would have <size>;"),
    (re.compile(r"\breq_[0-9A-Za-z]{8,}\b"), "<request>"),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<uuid>"),
)


def reason_of(error: str) -> str:
    """`error` without what is different each time."""
    for pattern, name in _IDS:
        error = pattern.sub(name, error)
    return error[:_SHOWN]


@dataclass(slots=True)
class _Group:
    count: int = 0
    last_us: int = 0
    keys: deque[RunKey] = field(default_factory=lambda: deque(maxlen=_LAST))


class FailureLog:
    """Counts each failure once, by namespace, pipeline and reason; forgets the oldest groups."""

    def __init__(self) -> None:
        self._groups: OrderedDict[tuple[str, str, str], _Group] = OrderedDict()
        self._counted: OrderedDict[tuple[RunKey, int, int], None] = OrderedDict()

    def add(
        self, key: RunKey, revision: int, created_us: int, pipeline: str, at_us: int, *errors: str
    ) -> None:
        """A run has ended with these errors; nothing the second time."""
        # A key that was removed begins again at revision 1: the start distinguishes the two runs.
        run = (key, revision, created_us)
        if run in self._counted or not errors:
            return
        self._counted[run] = None
        if len(self._counted) > _MAX_COUNTED:
            self._counted.popitem(last=False)
        for error in errors:
            name = (key.namespace, pipeline, reason_of(error))
            group = self._groups.setdefault(name, _Group())
            group.count += 1
            group.last_us = max(group.last_us, at_us)
            group.keys.append(key)
            self._groups.move_to_end(name)
        while len(self._groups) > _MAX_GROUPS:
            self._groups.popitem(last=False)

    def groups(self, scope: frozenset[str] | None, limit: int) -> list[dict[str, Any]]:
        """Return the groups of these namespaces, the latest first."""
        merged: dict[tuple[str, str], dict[str, Any]] = {}
        for (namespace, pipeline, reason), group in reversed(self._groups.items()):
            if scope is not None and namespace not in scope:
                continue
            entry = merged.setdefault(
                (pipeline, reason),
                {"pipeline": pipeline, "reason": reason, "count": 0, "last_us": 0, "keys": []},
            )
            entry["count"] += group.count
            entry["last_us"] = max(entry["last_us"], group.last_us)
            entry["keys"] += [[key.namespace, key.key] for key in reversed(group.keys)]
            del entry["keys"][_LAST:]
        latest = sorted(merged.values(), key=lambda entry: -entry["last_us"])
        return latest[:limit]
