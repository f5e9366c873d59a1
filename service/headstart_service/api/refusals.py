"""The log of refused calls: a line for each, and one for many when they are a flood.

A caller without a token may be anyone, so what it can write into the log is bounded. So is what a
token's bearers can.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Self

from ..domain import RunKey
from ..domain.errors import (
    CapacityExhausted,
    HeadstartError,
    PermissionDenied,
    Unauthenticated,
)
from ..domain.log_fields import fields

log = logging.getLogger(__name__)

EACH: Final = 10
"""Refusals of a code and a token that have a line of their own, in each window."""
WINDOW: Final = 10.0
"""Seconds after which the others are summed up in one line."""

_METHODS: Final = 20
"""Methods that one line names, at most; beyond, all count as `_OTHERS`."""
_OTHERS: Final = "others"
_LONGEST: Final = 100
"""Characters of a method that a line shows: that of a page is a path, which callers choose."""

REFUSED: Final = (Unauthenticated, PermissionDenied, CapacityExhausted)
"""The errors that are refusals."""
_CODES: Final[tuple[tuple[type[HeadstartError], str], ...]] = (
    (Unauthenticated, "UNAUTHENTICATED"),
    (PermissionDenied, "PERMISSION_DENIED"),
    (CapacityExhausted, "RESOURCE_EXHAUSTED"),
)


@dataclass(slots=True)
class _Window:
    lines: int = 0
    more: Counter[str] = field(default_factory=Counter)
    """By method, those without a line."""
    ends: asyncio.TimerHandle | None = None


def _no_run() -> None:
    """Stand for a call whose request names no run, or was not read."""


class Refusals:
    """Writes the lines of one process."""

    def __init__(self, *, each: int = EACH, window: float = WINDOW) -> None:
        """Write `each` line in `window` seconds, for each code and token."""
        self._each = each
        self._window = window
        self._open: dict[tuple[str, str], _Window] = {}

    def note(
        self,
        method: str,
        error: HeadstartError,
        *,
        token: str = "",
        peer: str = "",
        run: Callable[[], RunKey | None] = _no_run,
    ) -> None:
        """Note that a call of `method` was refused with `error`; another kind of error is none.

        `run` is called only if the refusal has a line of its own.
        """
        code = next((code for kind, code in _CODES if isinstance(error, kind)), "")
        if not code:
            return
        method = method[:_LONGEST]
        window = self._of(code, token)
        if window.lines >= self._each:
            known = method in window.more or len(window.more) < _METHODS
            window.more[method if known else _OTHERS] += 1
            return
        window.lines += 1
        about: dict[str, Any] = {"method": method, "outcome": code, **_named(token)}
        extra = fields("call.refused", run(), peer=peer, error=str(error), **about)
        log.warning("%s refused to %s: %s", method, peer or "a caller", error, extra=extra)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write what is not written yet."""
        for code, token in list(self._open):
            self._close(code, token)

    def _of(self, code: str, token: str) -> _Window:
        window = self._open.get((code, token))
        if window is None:
            window = self._open[code, token] = _Window()
            loop = asyncio.get_running_loop()
            window.ends = loop.call_later(self._window, self._close, code, token)
        return window

    def _close(self, code: str, token: str) -> None:
        """Write one line for the refusals that have none."""
        window = self._open.pop((code, token))
        if window.ends is not None:
            window.ends.cancel()
        if not window.more:
            return
        number = window.more.total()
        extra = fields(
            "calls.refused", outcome=code, count=number, methods=dict(window.more), **_named(token)
        )
        methods = ", ".join(sorted(window.more))
        log.warning("%d more calls were refused with %s: %s", number, code, methods, extra=extra)


def _named(token: str) -> dict[str, Any]:
    return {"token": token} if token else {}
