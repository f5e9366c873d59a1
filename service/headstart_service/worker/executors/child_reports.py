"""Sends what a step reports from its process to the worker, several times a second at most."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from ...domain import Progress
from ..progress import REPORTER

_EVERY: Final = 0.1
"""Seconds between two reports that are sent; of those between, the last one is."""


class ChildReports:
    """The reports of one call. Use it as a context around the call: none is sent after it."""

    def __init__(self, send: Callable[[Progress], None]) -> None:
        """Send each report by `send`, from any thread, one at a time."""
        self._send = send
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._latest: Progress | None = None
        """What is to be sent."""
        self._next = 0.0
        """When it may be, by the monotonic clock."""
        self._sending: threading.Thread | None = None
        self._ended = False

    def report(self, progress: Progress) -> None:
        """Take a report, from whatever thread of this process."""
        if os.getpid() != self._process:
            return  # a fork has the socket, too, but not the lock
        with self._changed:
            waits, self._latest = self._latest is not None, progress
            if waits or self._ended:
                return
            if time.monotonic() >= self._next:
                self._send_latest()
            elif self._sending is None:
                self._sending = threading.Thread(target=self._keep, name="reports", daemon=True)
                self._sending.start()
            else:
                self._changed.notify()

    def __enter__(self) -> Self:
        self._token = REPORTER.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        REPORTER.reset(self._token)
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _keep(self) -> None:
        """Send what had to wait, until the call ends."""
        with self._changed:
            while not self._ended:
                pause = None if self._latest is None else self._next - time.monotonic()
                if pause is None or pause > 0:
                    self._changed.wait(pause)
                else:
                    self._send_latest()

    def _send_latest(self) -> None:
        latest, self._latest = self._latest, None
        if latest is not None:
            self._send(latest)
        self._next = time.monotonic() + _EVERY
