"""Batches that gather while the previous one is being computed: no call waits for a timer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

from .cost_meter import spend
from .occupancy import occupying

Item = TypeVar("Item")
Value = TypeVar("Value")
_Submitted = tuple[Item, asyncio.Future[tuple[Value, float]]]
"""An item, and where its value goes with the CPU seconds that it took."""


def _one(_: object) -> float:
    """Every item is as much work as any other."""
    return 1.0


def _unobserved(_: int, __: float) -> None:
    """Observe no batch."""


def _unchecked(_: object) -> None:
    """Every item may join."""


class ComputeFailed(Exception):
    """Computing an item raised something that is no Exception, which its cause is.

    A Rust library's panic is such a one, and so is what `sys.exit` raises.
    """


class Batcher(Generic[Item, Value]):
    """Computes items in batches, on one thread of its own.

    An item that arrives while the thread is idle is computed at once; items that arrive while it
    is busy form the next batch. When a batch fails, each of its items is computed alone, so an item
    never fails another caller's. Use it as an async context manager: leaving it drops what still
    waits and ends the thread.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Value]],
        *,
        max_batch: int,
        max_waiting: int,
        name: str,
        observe: Callable[[int, float], None] | None = None,
        weigh: Callable[[Item], float] = _one,
        threads: Callable[[], int] = lambda: 1,
        check: Callable[[Item], None] = _unchecked,
    ) -> None:
        """Compute with `compute`, which gets 1 to `max_batch` items and returns as many values.

        `check` raises for an item that `compute` could not compute: StepFailed, for a step.
        `observe` receives of each batch how many items it had and how many seconds it took. The
        callers of a batch share its CPU seconds by their items' weights. These are the seconds of
        its own thread, times the `threads` that work in step with it.
        """
        self._weigh = weigh
        self._check = check
        self._threads = threads
        self._observe = observe or _unobserved
        self._compute = compute
        self._max_batch = max_batch
        self._waiting: asyncio.Queue[_Submitted[Item, Value]] = asyncio.Queue(max_waiting)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._name = name
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"batcher {self._name}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._drop_waiting()
        self._executor.shutdown(wait=True, cancel_futures=True)

    async def submit(self, item: Item) -> Value:
        """Return the value of `item`. Raises what `check` or `compute` raises for it alone.

        Raises ComputeFailed for what is no Exception, RuntimeError when the batcher is not open,
        CancelledError when it closes meanwhile.
        """
        self._check(item)
        if not self._open:
            raise RuntimeError(f"batcher {self._name} is not open")
        future: asyncio.Future[tuple[Value, float]] = asyncio.get_running_loop().create_future()
        with occupying():
            await self._waiting.put((item, future))
            if not self._open:
                # The batcher closed while this call waited for a place; others may still wait for
                # one.
                self._drop_waiting()
            value, cpu_seconds = await future
        spend(cpu_seconds=cpu_seconds)
        return value

    @property
    def _open(self) -> bool:
        return self._task is not None and not self._task.done()

    def _drop_waiting(self) -> None:
        while not self._waiting.empty():
            self._waiting.get_nowait()[1].cancel()

    async def _run(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._max_batch and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            # Leave out callers that were cancelled while they waited.
            batch = [(item, future) for item, future in batch if not future.done()]
            if batch:
                await self._settle(batch)

    async def _settle(self, batch: list[_Submitted[Item, Value]]) -> None:
        try:
            failed = await self._try(batch)
            if failed is not None and len(batch) > 1:
                # One item fails the whole batch: compute each alone, so that the others succeed.
                for each in batch:
                    if not each[1].done():
                        _fail([each], await self._try([each]))
            else:
                _fail(batch, failed)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise

    async def _try(self, batch: list[_Submitted[Item, Value]]) -> Exception | None:
        """Compute a batch, and settle it; returns why it could not be computed."""
        began = time.perf_counter()
        items = [item for item, _ in batch]
        try:
            values, cpu = await self._computed(items)
        except Exception as error:  # noqa: BLE001  # its callers get it
            return error
        self._observe(len(items), time.perf_counter() - began)
        weights = [self._weigh(item) for item in items]
        share = cpu / sum(weights)
        for (_, future), value, weight in zip(batch, values, weights, strict=True):
            if not future.done():
                future.set_result((value, share * weight))
        return None

    async def _computed(self, items: Sequence[Item]) -> tuple[Sequence[Value], float]:
        loop = asyncio.get_running_loop()
        values, cpu = await loop.run_in_executor(self._executor, self._timed, items)
        if len(values) != len(items):
            raise RuntimeError(f"{len(values)} values for {len(items)} items")
        return values, cpu

    def _timed(self, items: Sequence[Item]) -> tuple[Sequence[Value], float]:
        """The values, and the seconds of CPU that they took."""
        began = time.thread_time()
        try:
            values = self._compute(items)
        except Exception:
            raise
        except BaseException as error:
            # Unchanged, it would end the task that serves all callers, or the event loop.
            raise ComputeFailed(f"{type(error).__name__}: {error}") from error
        return values, (time.thread_time() - began) * self._threads()


def _fail(batch: list[_Submitted[Item, Value]], error: Exception | None) -> None:
    for _, future in batch:
        if error is not None and not future.done():
            future.set_exception(error)
