"""One module a question."""

from __future__ import annotations

from . import fetch, latency, starts, waiters

ALL = (latency.NOOP, latency.GAME, fetch.FIGURE, waiters.FIGURE, starts.FIGURE)
