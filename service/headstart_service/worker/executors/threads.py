"""Threads for steps. The thread of an abandoned step is replaced, as far as there is room."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from .queueing import queueing
from .remote_call import StepRaised

if TYPE_CHECKING:
    from ...pipeline.step import Step
    from ..cost_meter import CostMeter

log = logging.getLogger(__name__)

_Work = Callable[[], None]
_END: Final = None


def _nothing() -> None:
    """Observe no beginning."""


class Threads:
    """Daemon threads for the steps that runs wait for: the process can end before them.

    A thread whose step timed out or was cancelled, and goes on, is replaced; there are as many
    threads again for that. `concurrent.futures` joins its threads at exit, so a step that never
    ends would keep the worker.
    """

    def __init__(self, limit: int, wait: float, hung_after: float) -> None:
        """Let a step wait for one of `limit` threads for `wait` seconds at most.

        An abandoned step counts as hung after `hung_after` seconds.
        """
        self._limit = limit
        self._wait = wait
        self._hung_after = hung_after
        self._slots = asyncio.Semaphore(limit)
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._started = 0
        self._idle = 0
        self._left: dict[asyncio.Future[Any], float] = {}
        """The abandoned steps that go on, and since when."""
        self._replaced: set[asyncio.Future[Any]] = set()
        """Those of them whose slot was given to a new thread."""

    @property
    def hung(self) -> int:
        """How many threads run a step that was abandoned at least `hung_after` seconds ago."""
        before = time.monotonic() - self._hung_after
        return sum(since <= before for since in self._left.values())

    async def call(
        self,
        step: Step,
        arguments: Mapping[str, Any],
        meter: CostMeter,
        begin: Callable[[], None] = _nothing,
    ) -> Any:
        """Run the step's function in a thread, as soon as one is free; call `begin` then.

        When this is cancelled the function goes on. Raises StepFailed when no thread becomes free.
        """
        async with queueing(self._wait, "thread"):
            await self._slots.acquire()
        begin()
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            began = time.thread_time()
            value, error = None, None
            try:
                value = context.run(step.function, **arguments)
            except BaseException as raised:  # noqa: BLE001  # the caller raises it
                error = raised
            cpu = time.thread_time() - began
            try:
                loop.call_soon_threadsafe(self._ended, step.name, ended, value, error, cpu, meter)
            except RuntimeError:
                log.debug("%s ended after its worker", step.name)

        self._hand(work)
        try:
            return await ended
        except asyncio.CancelledError:
            if ended.cancelled():
                self._leave(step.name, ended)
            raise

    def _leave(self, name: str, ended: asyncio.Future[Any]) -> None:
        """Replace the thread of a step that no run waits for any more, if there is room."""
        self._left[ended] = time.monotonic()
        replaced = len(self._replaced) < self._limit
        if replaced:
            self._replaced.add(ended)
            self._slots.release()
        log.warning(
            "%s goes on in its thread, though no run waits for it: %d threads do; it is %s",
            name,
            len(self._left),
            "replaced" if replaced else "not replaced, so there is a thread less",
        )

    def close(self) -> None:
        """Let idle threads end; others end when their step does, or with the process."""
        for _ in range(self._started):
            self._work.put(_END)

    def _hand(self, work: _Work) -> None:
        if self._idle:
            self._idle -= 1
        else:
            self._started += 1
            name = f"step {self._started}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        self._work.put(work)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # else its values would live until the next one

    def _ended(
        self,
        name: str,
        ended: asyncio.Future[Any],
        value: Any,
        error: BaseException | None,
        cpu: float,
        meter: CostMeter,
    ) -> None:
        meter.cpu_seconds += cpu
        self._idle += 1
        if ended in self._replaced:
            self._replaced.remove(ended)
        else:
            self._slots.release()
        if self._left.pop(ended, None) is not None:
            log.info("%s has ended in its thread, which is free again", name)
        elif error is None:
            ended.set_result(value)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            ended.set_exception(error)
        else:
            ended.set_exception(StepRaised.by(error))
