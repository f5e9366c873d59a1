"""Runs the steps that run once for each item of a list: a list of values and failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from headstart.v1 import precompute_pb2 as pb

from ..domain import Claim, FailureReason, ItemsChunk, Progress, StepRecord, StepState
from ..domain.errors import HeadstartError, StepFailed
from ..pipeline.each import ItemDigests, item_seed, item_text
from ..pipeline.step import Step
from ..values.fragments import report_fragment, result_of
from ..values.items import of_item
from ..values.limits import Limits
from .arguments import GivenItem
from .hurry import AwaitedSteps
from .item_board import EndedItem, ItemBoard, Pause
from .memoised_failures import MemoisedFailure, failure_get, failure_put
from .occupancy import keeping
from .reasons import readable
from .reuse import Landed, Reuse
from .step_log import StepLog
from .worker_observer import ItemEnd, StepEnd, StepOutcome

KeepItems = Callable[[ItemsChunk], Awaitable[None]]
"""Writes items of a step that runs. Raises LeaseLost and StoreUnavailable."""
_TRIED: Final = 20
"""Failed tries of items that a step's outcome has, at most."""


class ItemTries(Protocol):
    """What runs the tries of one item; `step_run.StepRunner` satisfies it."""

    digests: dict[str, str]
    kept: dict[str, StepRecord]
    limits: Limits
    reuse: Reuse
    awaited: AwaitedSteps

    def now_us(self) -> int:
        """Return the time by the store's clock."""
        ...

    def note_stopped(self, step: Step, outcome: StepOutcome, took: float) -> None:
        """Count the work of a step or an item that no run waited for when it ended."""
        ...

    def items_given(self, step: Step) -> tuple[Any, ItemDigests]:
        """Return the list that a step runs for, and the digests of its items."""
        ...

    async def remembered(self, name: str, memo: str) -> bytes | None:
        """Return a memoised result, if there is one."""
        ...

    async def attempt(
        self,
        step: Step,
        started_us: int,
        outcome: StepOutcome,
        given: StepLog,
        item: GivenItem | None = None,
    ) -> tuple[StepRecord, Any]:
        """Try an item until it succeeds or may not be tried again."""
        ...


@dataclass(slots=True)
class _Work:
    """One step at work on its list."""

    step: Step
    items: list[Any] | tuple[Any, ...]
    digests: ItemDigests
    board: ItemBoard
    started_us: int
    outcome: StepOutcome
    """The step's."""
    keep: KeepItems
    reused: int = 0
    """Items that were remembered, or shared with another key."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)


class StepsOfItems:
    """The steps of one run that run for each item of a list."""

    def __init__(self, claim: Claim, tries: ItemTries) -> None:
        """Run the tries by `tries`."""
        self._claim = claim
        self._tries = tries
        self._boards: dict[str, tuple[ItemBoard, int]] = {}

    def shown(self, name: str) -> StepRecord | None:
        """Return the record of a step that runs, once its list is known."""
        known = self._boards.get(name)
        return None if known is None else _running(*known)

    async def run(
        self, step: Step, started_us: int, outcome: StepOutcome, keep: KeepItems
    ) -> StepRecord:
        """Run a step for each item of its list. Fills `outcome`, writes what has ended with `keep`.

        Raises what `keep` raises, and ExecutorUnavailable when an item cannot run here.
        """
        began = time.monotonic()
        try:
            work = self._begin(step, started_us, outcome, keep)
        except StepFailed as failure:
            return self._failed(step, started_us, outcome, readable(failure), failure)
        self._boards[step.name] = work.board, started_us
        try:
            await self._all(work)
        except StepFailed as failure:
            return self._failed(step, started_us, outcome, readable(failure), failure, work.board)
        except asyncio.CancelledError:
            self._tries.note_stopped(step, outcome, time.monotonic() - began)
            raise
        finally:
            del self._boards[step.name]
            keeping(-work.board.size)
        return self._ended(work)

    def _begin(self, step: Step, started_us: int, outcome: StepOutcome, keep: KeepItems) -> _Work:
        items, digests = self._tries.items_given(step)
        if not isinstance(items, list | tuple):
            raise _wrong(step, f"is {type(items).__name__}", FailureReason.WRONG_TYPE)
        if len(items) > step.max_items:
            raise _wrong(step, f"has {len(items):,}", FailureReason.TOO_LARGE)
        limits = self._tries.limits.of(step.max_bytes)
        held = sum(len(record.fragment) for record in self._tries.kept.values())
        board = ItemBoard(step.name, len(items), digests.basis, limits, held)
        board.restore(self._claim.items.get(step.name))
        keeping(board.size)
        return _Work(step, items, digests, board, started_us, outcome, keep)

    async def _all(self, work: _Work) -> None:
        """Run all items that are left, so many at a time as the step may.

        Raises the first error of an item or a write, without a group around it.
        """
        left = iter(work.board.left)
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write(work), name=f"{work.step.name} items")
                lanes = [
                    group.create_task(self._lane(work, left), name=f"{work.step.name} items")
                    for _ in range(min(work.step.parallel, len(work.board.left)))
                ]
                if lanes:
                    await asyncio.wait(lanes)
                work.over.set()
                work.news.set()
                await writing
        except BaseExceptionGroup as errors:
            raise _first(errors) from None

    async def _lane(self, work: _Work, left: Iterator[int]) -> None:
        for index in left:
            work.board.running += 1
            began = time.monotonic()
            try:
                item, computed = await self._item(work, index)
            finally:
                work.board.running -= 1
            keeping(item.size)
            work.outcome.items[_end_of(item, computed=computed)] += 1
            work.board.end(index, item, time.monotonic() - began if computed else None)
            work.news.set()

    async def _item(self, work: _Work, index: int) -> tuple[EndedItem, bool]:
        """Compute one item, or take it over. Returns it, and whether it was computed now."""
        step, run, reuse = work.step, self._claim.lease.job.key, self._tries.reuse
        text = item_text(work.items[index])
        digest = work.digests.of(text)
        given = GivenItem(work.items[index], len(text), item_seed(digest))

        def stopped(outcome: StepOutcome) -> None:
            meter = outcome.meter
            if meter.cpu_seconds or meter.llm_tokens:  # the step's own time has that of its items
                self._tries.note_stopped(step, outcome, 0.0)

        async def computed(outcome: StepOutcome) -> Landed:
            with reuse.step_logs.held(key, log):
                return await self._tried(work, digest, given, log, outcome)

        # Equal items of a list may get different values, unless the step is memoised.
        key = (run.namespace, digest) if step.memo else (run, digest, index)
        outcome = StepOutcome()
        try:
            with (
                reuse.step_logs.log(key, step, _unheard, fresh=self._claim.fresh) as log,
                self._tries.awaited.hurrying(step.name, log.hurry),
            ):
                landed: Landed = await reuse.shared_steps.share(
                    *(key, run, self._tries.digests[step.name], outcome, computed),
                    fresh=self._claim.fresh,
                    stopped=stopped,
                )
        except Exception:
            _add(work.outcome, outcome)
            raise
        _add(work.outcome, outcome)
        other = landed.record is None or landed.run != run
        work.reused += other
        if outcome.state is not StepEnd.COMPLETED:
            reason = outcome.failure_reason or FailureReason.INTERNAL
            return EndedItem("", outcome.error, reason, outcome.attempts), not other
        fragment = landed.remembered if landed.record is None else landed.record.fragment
        name = of_item(step.name)
        artifact = pb.GetResultsResponse.FromString(fragment).custom.artifacts[name]
        if artifact.WhichOneof("value") != "json":
            error = "returned what is not kept as JSON, which a step with each must return"
            return EndedItem("", error, FailureReason.WRONG_TYPE, outcome.attempts), not other
        return EndedItem(artifact.json, attempts=0 if other else outcome.attempts), not other

    async def _tried(
        self, work: _Work, digest: str, given: GivenItem, log: StepLog, outcome: StepOutcome
    ) -> Landed:
        """Return what is remembered of an item, else compute it and remember that."""
        step, run, memos = work.step, self._claim.lease.job.key, self._tries.reuse.memos
        if step.memo and not self._claim.fresh:
            result = await self._tries.remembered(of_item(step.name), digest)
            if result is not None:
                outcome.state, outcome.attempts = StepEnd.COMPLETED, 0
                return Landed(run, None, result)
            failure = await failure_get(memos, run.namespace, step, digest)
            if failure is not None:
                outcome.state, outcome.attempts = StepEnd.FAILED, 0
                outcome.error, outcome.failure_reason = failure
                return Landed(run, None)
        record, _ = await self._tries.attempt(step, work.started_us, outcome, log, given)
        if step.memo and record.state is StepState.COMPLETED:
            result = result_of(record.fragment)
            await memos.memo_put(run.namespace, digest, result, step.ttl)
        elif step.memo and outcome.failure_reason is not None:
            failure = MemoisedFailure(outcome.error, outcome.failure_reason)
            await failure_put(memos, run.namespace, step, digest, failure)
        return Landed(run, record)

    async def _write(self, work: _Work) -> None:
        """Write items as they end; those that end together share a write."""
        pause = Pause()
        work.news.set()  # also the length of the list is news
        while True:
            await work.news.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause.left(work.board.size)):
                    await work.over.wait()
            if work.over.is_set():
                return  # the step's own result has all items
            work.news.clear()
            record = _running(work.board, work.started_us)
            await work.keep(work.board.chunk(record.fragment))
            pause.written()

    def _ended(self, work: _Work) -> StepRecord:
        board, outcome, step = work.board, work.outcome, work.step
        outcome.attempts = board.attempts
        failures = board.failures
        if failures and len(failures) == board.total:
            first = failures[0]
            only = board.total == 1
            which = (
                "its only item failed" if only else f"all {board.total:,} items failed; the first"
            )
            why = StepFailed("", failure_reason=first.reason or FailureReason.INTERNAL)
            error = readable(f"{which}: {first.error}")
            return self._failed(step, work.started_us, outcome, error, why, board)
        outcome.state = StepEnd.COMPLETED
        memoised = bool(board.total) and work.reused == board.total
        outcome.memoised = memoised
        report = report_fragment(
            step.name,
            StepState.COMPLETED,
            elapsed=self._elapsed(work.started_us),
            attempts=board.attempts,
            started_us=work.started_us,
            origin=pb.STEP_ORIGIN_MEMOISED if memoised else pb.STEP_ORIGIN_UNSPECIFIED,
            items=board.progress(),
        )
        return StepRecord(step.name, StepState.COMPLETED, board.whole() + report)

    def _failed(
        self,
        step: Step,
        started_us: int,
        outcome: StepOutcome,
        error: str,
        failure: StepFailed,
        board: ItemBoard | None = None,
    ) -> StepRecord:
        """Return the record of a failed step; its items stay readable if none has a value."""
        outcome.state, outcome.error = StepEnd.FAILED, error
        outcome.failure_reason = failure.failure_reason
        report = report_fragment(
            step.name,
            StepState.FAILED,
            error=error,
            failure_reason=failure.failure_reason,
            elapsed=self._elapsed(started_us),
            attempts=0 if board is None else board.attempts,
            started_us=started_us,
            items=None if board is None else board.progress(),
        )
        kept = (
            b""
            if board is None or failure.failure_reason is FailureReason.TOO_LARGE
            else (board.failed())
        )
        return StepRecord(step.name, StepState.FAILED, kept + report)

    def _elapsed(self, started_us: int) -> float:
        return (self._tries.now_us() - started_us) / 1e6


def _running(board: ItemBoard, started_us: int) -> StepRecord:
    report = report_fragment(
        board.step, StepState.RUNNING, started_us=started_us, items=board.progress()
    )
    return StepRecord(board.step, StepState.RUNNING, report)


def _wrong(step: Step, given: str, reason: FailureReason) -> StepFailed:
    rule = f"{step.each} must be a list of 0 to {step.max_items:,} items, {given}"
    return StepFailed(rule, retry=False, failure_reason=reason)


def _unheard(progress: Progress) -> None:
    """Do nothing with what an item reports: its step has no place for it."""


def _end_of(item: EndedItem, *, computed: bool) -> ItemEnd:
    if not computed:
        return ItemEnd.REUSED
    return ItemEnd.COMPLETED if item.reason is None else ItemEnd.FAILED


def _add(whole: StepOutcome, item: StepOutcome) -> None:
    """Add what an item has cost, and its first failed tries."""
    whole.meter.add(item.meter)
    whole.tried.extend(item.tried[: _TRIED - len(whole.tried)])


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first expected error of a group, else the first one."""
    found: BaseException = errors.subgroup(HeadstartError) or errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
