"""Stops a step that keeps the event loop for itself.

A thread checks a few times within the limit which step the loop runs. When it was the same piece
of it each time, the thread sends a signal to the loop's thread. The signal's handler raises there
and then, inside the step. Python runs the handler between two of its instructions, so the handler
knows what it would interrupt. It spares what runs after the step, and an import under way: a
half-imported package is broken for every step. It spares the service's and asyncio's own code,
whose state other steps share.
"""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Final, Self

log = logging.getLogger(__name__)

_SIGNAL: Final = signal.SIGURG
"""Ignored by default, so one that arrives late does no harm."""
_CHECKS: Final = 5
"""How often a piece of work is looked at before it is stopped. A process that was itself stopped
for a while has looked once."""
_AGAIN: Final = 0.01
"""Seconds until the next try when the signal came at a bad moment."""
_SHARED: Final = ("headstart_service", "asyncio", "logging", "threading", "queue")
_STEPS: Final = "headstart_service.pipelines."
_IMPORTS: Final = ("importlib._bootstrap", "importlib._bootstrap_external", "_frozen_importlib")


class LoopBlocked(BaseException):
    """Raised in a step that keeps the event loop; no Exception, so that few steps catch it."""


class Piece:
    """What a step does from one await to the next."""

    __slots__ = ("interrupted",)

    def __init__(self) -> None:
        self.interrupted = False


class Watchdog:
    """Watches the pieces of all steps on one loop. Use it as a context, in the loop's thread."""

    def __init__(self, limit: float, *, ended: threading.Event | None = None) -> None:
        """Allow `limit` seconds for a piece; 0 for any time. `ended` ends the watch."""
        self.limit = limit
        self.current: Piece | None = None
        """What the loop runs now."""
        self.doomed: Piece | None = None
        """What the next signal interrupts."""
        self.forgiven: Piece | None = None
        """What has its time again, because it imports."""
        self._ended = ended or threading.Event()
        self._thread: threading.Thread | None = None
        self._before: Any = None

    def __enter__(self) -> Self:
        # Signal handlers run in the main thread alone: a loop in another thread gets only a
        # warning.
        if self.limit and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(_SIGNAL, self.interrupt)
            self._thread = threading.Thread(target=self.watch, name="loop watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None
            signal.signal(_SIGNAL, self._before or signal.SIG_DFL)

    def watch(self) -> None:
        """Send signals to the loop's thread until the watch ends."""
        loop_thread = threading.main_thread().ident
        assert loop_thread is not None
        pause, checks, seen = self.limit / _CHECKS, 0, None
        while not self._ended.wait(pause):
            piece, pause = self.current, self.limit / _CHECKS
            if piece is None or piece is not seen or piece is self.forgiven:
                self.forgiven = None
                seen, checks = piece, 0
            elif (checks := checks + 1) >= _CHECKS:
                self.doomed = piece
                signal.pthread_kill(loop_thread, _SIGNAL)
                pause = _AGAIN

    def interrupt(self, _: int, frame: FrameType | None) -> None:
        """Raise in the step that is doomed, if it still runs and nothing shared is under way."""
        piece, self.doomed = self.doomed, None
        if piece is None or piece is not self.current:
            return
        if frame is None or _is_driver(frame):
            return  # the piece has just ended, or not begun
        while frame is not None and not _is_driver(frame):
            name = frame.f_globals.get("__name__", "")
            if name in _IMPORTS:
                self.forgiven = piece
                return
            if not name.startswith(_STEPS) and name.split(".", 1)[0] in _SHARED:
                return
            frame = frame.f_back
        piece.interrupted = True
        raise LoopBlocked


def _is_driver(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") == _DRIVER


_DRIVER: Final = __name__.rpartition(".")[0] + ".event_loop"
