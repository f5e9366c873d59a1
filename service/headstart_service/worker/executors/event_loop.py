"""Runs a coroutine on the event loop, piece by piece, so that each can be measured and stopped."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Generator
from types import CoroutineType
from typing import Any

from ...domain import FailureReason
from ...domain.errors import StepFailed
from ..cost_meter import CostMeter
from .remote_call import StepRaised
from .watchdog import LoopBlocked, Piece, Watchdog

log = logging.getLogger(__name__)


class drive:  # noqa: N801  # used as a function: `await drive(…)`
    """Await `work` as the step of this name, and add its CPU seconds to `meter`.

    Raises StepFailed when it was stopped because it kept the loop for longer than the watchdog
    allows. A step that goes on for `grace` seconds after it was cancelled is closed where it
    stands.
    """

    __slots__ = ("_grace", "_meter", "_name", "_watchdog", "_work")

    def __init__(
        self,
        work: CoroutineType[Any, Any, Any],
        name: str,
        meter: CostMeter,
        watchdog: Watchdog,
        grace: float,
    ) -> None:
        self._work = work
        self._name = name
        self._meter = meter
        self._watchdog = watchdog
        self._grace = grace

    def __await__(self) -> Generator[Any, Any, Any]:
        work, patience = self._work, None
        task = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        error: BaseException | None = None
        try:
            while True:
                try:
                    waits_for = self._piece(error)
                except StopIteration as end:
                    return end.value
                if patience is not None and task is not None and task.cancelling() <= before:
                    # The step cancelled itself, by a timeout or cancel scope, and has handled it.
                    patience.end()
                    patience = None
                try:
                    yield waits_for
                    error = None
                except asyncio.CancelledError as cancelled:
                    error = cancelled
                    if patience is None:
                        patience = _Patience(self._grace)
                    elif patience.over:
                        log.warning("%s went on after it was cancelled: closed", self._name)
                        raise
                except BaseException as other:  # noqa: BLE001  # it is the step's to have
                    error = other
        finally:
            if patience is not None:
                patience.end()
            self._close(work)

    def _piece(self, error: BaseException | None) -> Any:
        """Let the step run until it waits. Gives what it waits for; raises what it raises."""
        watchdog, work, piece = self._watchdog, self._work, Piece()
        began, cpu = time.monotonic(), time.thread_time()
        watchdog.current = piece
        try:
            return work.send(None) if error is None else work.throw(error)
        except LoopBlocked as blocked:
            watchdog.current = None  # else a second interruption would hit the report of this one
            self._log_blocked(blocked)
            raise self._failed() from None
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as raised:  # SystemExit, a Rust library's panic, …
            raise StepRaised.by(raised) from raised
        finally:
            watchdog.current = None
            self._meter.cpu_seconds += time.thread_time() - cpu
            if watchdog.limit:
                elapsed = time.monotonic() - began
                if piece.interrupted:
                    # The step fails, even if it caught the interruption.
                    raise self._failed()
                if elapsed > watchdog.limit:
                    log.warning(
                        "%s blocked the event loop for %.1f s and could not be stopped",
                        self._name,
                        elapsed,
                    )

    def _failed(self) -> StepFailed:
        return StepFailed(
            f"blocked the event loop for more than {self._watchdog.limit:g} s: "
            "use runs_on='thread'",
            retry=False,
            failure_reason=FailureReason.BLOCKED,
        )

    def _log_blocked(self, blocked: LoopBlocked) -> None:
        frames = traceback.extract_tb(blocked.__traceback__)
        file = self._work.cr_code.co_filename
        line = next((each.lineno for each in reversed(frames) if each.filename == file), "?")
        log.warning("%s blocked the event loop at %s:%s", self._name, file, line)

    def _close(self, work: CoroutineType[Any, Any, Any]) -> None:
        if work.cr_frame is None:  # ended, as it should have
            return
        watchdog = self._watchdog
        watchdog.current = Piece()
        try:
            work.close()
        except BaseException as error:  # noqa: BLE001  # it has failed already
            log.warning("%s could not be closed: %r", self._name, error)
        finally:
            watchdog.current = None


class _Patience:
    """Wakes a cancelled task again when it has not ended in time."""

    __slots__ = ("_task", "_timer", "over")

    def __init__(self, seconds: float) -> None:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._strike)
        self.over = False

    def _strike(self) -> None:
        self.over = True
        if self._task is not None:
            self._task.cancel()
            self._task.uncancel()  # keep the count: the first canceller waits

    def end(self) -> None:
        self._timer.cancel()
