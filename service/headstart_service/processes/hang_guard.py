"""Ends a worker's process when its event loop stands still, whatever holds it.

A thread of this module sees whether the loop still runs. The thread needs Python's interpreter
lock, which code in C may keep for ever. So it sets a timer of the operating system again and again.
The timer's signal is handled in C: the stacks of all threads go to standard error, then the process
ends. No part of that needs the lock, and it works for the first process of a container too.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ..base.exit_codes import BLOCKED

log = logging.getLogger(__name__)

_CHECKS: Final = 5
"""How often the loop is checked before it counts as blocked. A process that was itself stopped
for a while has made one check."""
_LOCKED: Final = 2.0
"""Times the limit after which the process ends if this module's thread cannot run either."""
_LEAVE: Final = 30.0
"""Seconds that a process has to end once its work has."""


class HangGuard:
    """Watches the event loop of this process, if `limit` seconds are more than 0."""

    def __init__(self, limit: float) -> None:
        """Let the loop stand still for `limit` seconds at most; 0 for any time."""
        self._limit = limit
        self._beats = 0
        self._end = threading.Event()

    @contextmanager
    def watching(self, underway: Callable[[], str]) -> Iterator[None]:
        """Watch the running loop; `underway` returns what the log names as possible causes.

        When it is left, the process has 30 s to end: a thread that spins must not keep it.
        """
        if not self._limit:
            yield
            return
        _end_by_alarm()
        loop = asyncio.get_running_loop()
        every = self._limit / _CHECKS

        def beat() -> None:
            self._beats += 1
            if not self._end.is_set():
                loop.call_later(every / 2, beat)

        beat()
        thread = threading.Thread(
            target=self._watch, args=(every, underway), name="hang guard", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()
            signal.setitimer(signal.ITIMER_REAL, _LEAVE)

    def _watch(self, every: float, underway: Callable[[], str]) -> None:
        seen, unchanged = -1, 0
        while True:
            signal.setitimer(signal.ITIMER_REAL, self._limit * _LOCKED)
            if self._end.wait(every):
                return
            beats = self._beats
            seen, unchanged = beats, unchanged + 1 if beats == seen else 0
            if unchanged >= _CHECKS:
                log.critical(
                    "the event loop has stood still for %g s, so this worker ends; the stacks of "
                    "its threads follow; under way: %s",
                    self._limit,
                    underway() or "nothing",
                )
                os.kill(os.getpid(), signal.SIGALRM)


def _end_by_alarm() -> None:
    """Let SIGALRM write all stacks and end the process with `BLOCKED`, in C alone."""
    assert int(signal.SIGALRM) == BLOCKED, "the handler is called with the signal's number"
    # SIGALRM's default action does not end the first process of a container; a handler does.
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGALRM, ctypes.cast(libc["_exit"], ctypes.c_void_p))
    faulthandler.register(signal.SIGALRM, file=sys.stderr, all_threads=True, chain=True)
