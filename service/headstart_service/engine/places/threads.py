"""Threads for steps. One that never ends keeps its slot, and nothing else."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from .perform import StepRaised

if TYPE_CHECKING:
    from ..meter import Meter
    from ..step import Step

log = logging.getLogger(__name__)

_Work = Callable[[], None]
_END: Final = None


class Threads:
    """At most so many daemon threads: the process can end while one of them does not.

    `concurrent.futures` joins its threads at exit, so a step that never ends would keep the worker.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._slots = asyncio.Semaphore(limit)
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._started = 0
        self._idle = 0
        self.stuck = 0
        """How many slots are kept by steps that nobody waits for any more."""

    async def call(self, step: Step, arguments: Mapping[str, Any], meter: Meter) -> Any:
        """Run the step's function in a thread, as soon as one is free.

        When this is cancelled the function goes on, and its slot is taken until it returns.
        """
        await self._slots.acquire()
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
                self.stuck += 1
                log.warning(
                    "%s goes on in its thread, though nobody waits for it: %d of %d threads are "
                    "kept so",
                    step.name,
                    self.stuck,
                    self._limit,
                )
            raise

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
            del work  # or its values would live until the next one

    def _ended(
        self,
        name: str,
        ended: asyncio.Future[Any],
        value: Any,
        error: BaseException | None,
        cpu: float,
        meter: Meter,
    ) -> None:
        meter.cpu_seconds += cpu
        self._idle += 1
        self._slots.release()
        if ended.cancelled():
            self.stuck -= 1
            log.info("%s has ended in its thread, which is free again", name)
        elif error is None:
            ended.set_result(value)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            ended.set_exception(error)
        else:
            ended.set_exception(StepRaised.by(error))
