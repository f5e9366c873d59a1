"""Calls of a language model that wait in batches of its API, because their runs are needed later.

A request is noted in Redis before it is handed in, and its batch right after. So the next try of a
run whose worker was lost goes on with the same batch. A worker that is lost between the two may
cost that request a second batch, which is one call. While a batch is worked on, its step's clock
stands still. A call that gets no answer in time, or none at all, is made directly.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from ..base.metric_labels import BatchEnd
from ..domain import FREE, BatchedRequest, BatchOwner, CallOutcome, MessageBatches
from ..domain.errors import (
    CapacityExhausted,
    ExecutorUnavailable,
    StepFailed,
    StoreUnavailable,
)
from ..pipeline.language_model import Answer, Usage
from ..worker.cost_meter import spend
from ..worker.step_caller import CALLER, StepCaller
from ..worker.step_deadline import seconds_left, step_clock
from ..worker.step_try import TRY
from .dialect import BatchDialect, Question
from .governor import Governor
from .model_request import ModelRequest, SdkErrors, translated
from .provider_observer import ANSWERED, CANCELLED, TIMEOUT, LanguageModelObserver

log = logging.getLogger(__name__)

_SHARE: Final = 0.1
"""Of the time that a batch has taken: the pause before the next poll."""
_JITTER: Final = 0.25
_CLOSING: Final = 5.0
"""Seconds in which batches that no run waits for may be canceled while the worker stops."""
_FOLLOWED: Final = 900.0
"""Seconds for which a canceled batch is watched: it may end with an answer, which is paid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRules:
    """When calls go into batches. Durations in seconds."""

    least: float = 3600.0
    """A run that is needed sooner calls directly: most batches end within an hour."""
    margin: float = 600.0
    """So long before the need a call is made directly, or by the step's time if that is longer."""
    first: float = 1.0
    """The first pause between polls."""
    longest: float = 300.0
    """The longest pause between polls."""
    grace: float = 5.0
    """How long a batch goes on without an owner: a replaced run, or its next worker, may want it.
    """


@dataclass(slots=True)
class _Call:
    """A call that waits for its batch."""

    caller: StepCaller
    owner: BatchOwner
    request: BatchedRequest
    until: float
    """When it is made directly, by the monotonic clock."""


class BatchedCalls:
    """Has questions to one model answered in batches."""

    def __init__(
        self,
        dialect: BatchDialect,
        kept: MessageBatches,
        governor: Governor,
        observer: LanguageModelObserver,
        rules: BatchRules,
        *,
        identity: str,
        title: str,
        timeout: float,
    ) -> None:
        """Speak `dialect` with the API that messages call `title`; `timeout` is that of a call."""
        self._dialect = dialect
        self._kept = kept
        self._governor = governor
        self._observer = observer
        self._rules = rules
        self._identity = identity
        self._title = title
        self._timeout = timeout
        self._closing = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Cancel the batches that no run waits for, and return."""
        self._closing.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def answer(self, question: Question, errors: SdkErrors) -> Answer | None:
        """Return the answer of a batch; None for a question that is to be asked directly.

        Raises ExecutorUnavailable when the worker drains: the next one goes on with the batch.
        """
        caller = CALLER.get()
        if not caller.needed_at or not caller.run_id:
            return None
        parameters = self._dialect.request(question)
        call = await self._noted(caller, parameters)
        if call is None:
            return None
        clock = step_clock()
        if clock is not None:
            clock.stop()
        try:
            adopted = bool(call.request.batch)
            if not adopted:
                await self._hand_in(call, question, parameters, errors)
            if not call.request.batch:
                self._end(call, BatchEnd.FAILED)
                return None
            answer = await self._awaited(call, errors, adopted=adopted)
        except asyncio.CancelledError:
            self._leave(call, errors, cancels=not self._governor.draining.is_set())
            raise
        except ExecutorUnavailable:
            self._leave(call, errors, cancels=False)
            raise
        finally:
            if clock is not None:
                clock.go()
        if answer is not None:
            self._deliver(call, answer)
        return answer

    async def _noted(self, caller: StepCaller, parameters: Mapping[str, Any]) -> _Call | None:
        """Note a request, or take one over that has lost its owner; None to ask directly."""
        owner = BatchOwner(caller.run_id, caller.attempt)
        new = BatchedRequest(self._digest(caller, parameters), uuid.uuid4().hex)
        create = caller.needed_at - time.monotonic() >= self._rules.least
        try:
            request = await self._kept.take(new, owner, create=create)
        except (StoreUnavailable, CapacityExhausted) as error:
            log.warning("%s: no batch: %s", self._title, error)
            return None
        margin = max(self._rules.margin, seconds_left() or 0.0)
        return _Call(caller, owner, request, caller.needed_at - margin) if request else None

    def _digest(self, caller: StepCaller, parameters: Mapping[str, Any]) -> str:
        asks = [caller.namespace, caller.key, self._identity, parameters]
        return hashlib.sha256(json.dumps(asks, sort_keys=True).encode()).hexdigest()

    async def _hand_in(
        self, call: _Call, question: Question, parameters: Mapping[str, Any], errors: SdkErrors
    ) -> None:
        """Hand the call's request in; it stays without a batch if the API takes none in time."""
        pause, tokens = self._rules.first, question.estimate + question.max_tokens
        while (left := call.until - time.monotonic()) > 0:
            try:
                permit = await self._governor.permit(tokens)
            except StepFailed as error:
                log.info("%s: no batch: %s", self._title, error)
                break
            tried, outcome = self._new_request(), CallOutcome.LOST
            try:
                async with self._translated(tried, errors):
                    batch = await self._dialect.hand_in(parameters, call.request.id)
                outcome = CallOutcome.ANSWERED
            except StepFailed as error:
                log.info("%s: no batch: %s", self._title, error)
                if not tried.may_pass:
                    break
            else:
                log.debug("%s: %s waits for batch %s", self._title, call.caller.key, batch)
                call.request = replace(call.request, batch=batch)
                await self._owns(call)
                break
            finally:
                # Batches have limits of their own: a refusal shows nothing of direct calls.
                permit.settle(outcome, ANSWERED if outcome is CallOutcome.ANSWERED else CANCELLED)
            await self._pause(call, min(left, max(pause, tried.retry_after)))
            pause = min(2 * pause, self._rules.longest)

    def _new_request(self) -> ModelRequest:
        return ModelRequest(self._title, time.perf_counter(), self._timeout)

    @asynccontextmanager
    async def _translated(self, tried: ModelRequest, errors: SdkErrors) -> AsyncIterator[None]:
        """Raise StepFailed for what goes wrong, also if it takes too long."""
        try:
            async with asyncio.timeout(2 * self._timeout):
                with translated(tried, self._timeout, errors):
                    yield
        except TimeoutError as error:
            tried.end = TIMEOUT
            raise StepFailed("it did not answer") from error

    async def _awaited(self, call: _Call, errors: SdkErrors, *, adopted: bool) -> Answer | None:
        """Return the answer of the call's batch; None once it is to be made directly."""
        since, pause = time.monotonic(), 0.0 if adopted else self._rules.first
        try:
            while True:
                await self._pause(call, min(pause, call.until - time.monotonic()))
                late = time.monotonic() >= call.until
                polled = await self._poll(call.request, errors, cancels=late)
                if isinstance(polled, Answer):
                    return polled
                if polled is None or late:
                    self._give_up(call, errors, late=late)
                    return None
                share = (time.monotonic() - since) * _SHARE
                pause = max(self._rules.first, min(self._rules.longest, max(share, polled)))
                pause *= random.uniform(1, 1 + _JITTER)  # noqa: S311  # no secret
                if not await self._owns(call):
                    raise ExecutorUnavailable("another worker has the run, and waits for its batch")
        finally:
            spend(waited=time.monotonic() - since)  # no time that the step itself takes

    async def _poll(
        self, request: BatchedRequest, errors: SdkErrors, *, cancels: bool = False
    ) -> Answer | float | None:
        """Return the answer, or the seconds that the API asks callers to wait for the next poll.

        Returns None when there will be no answer. With `cancels`, cancel the batch unless it has
        ended.
        """
        tried = self._new_request()
        try:
            async with self._translated(tried, errors):
                ended = await self._dialect.has_ended(request.batch)
                if not ended and cancels:
                    ended = await self._dialect.cancel(request.batch)
                if not ended:
                    return 0.0
                return await self._dialect.answer(request.batch, request.id)
        except StepFailed as error:
            log.info("%s: batch %s: %s", self._title, request.batch, error)
            return max(0.0, tried.retry_after) if tried.may_pass else None

    async def _pause(self, call: _Call, seconds: float) -> None:
        """Wait for the next poll. Raises ExecutorUnavailable when the worker drains meanwhile."""
        until = time.monotonic() + max(0.0, seconds)
        while True:
            if self._closing.is_set() or self._governor.hands_on(call.caller.run):
                raise ExecutorUnavailable("the worker stops; another one waits for the batch")
            if (left := until - time.monotonic()) <= 0:
                return
            if self._governor.draining.is_set():
                # A call of the run is under way, and ends before the run is handed on.
                await asyncio.sleep(min(left, 1.0))
            else:
                await self._stops(left)

    async def _stops(self, seconds: float) -> None:
        """Return after so many seconds, or when the worker drains, or the model is closed."""
        events = (self._governor.draining, self._closing)
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def _owns(self, call: _Call) -> bool:
        """Note the batch and its owner. Returns False when another worker has them."""
        try:
            return await self._kept.keep(call.request, call.owner, then=call.owner)
        except StoreUnavailable as error:
            log.debug("%s: batch %s is not noted: %s", self._title, call.request.batch, error)
            return True  # the next poll notes it

    def _deliver(self, call: _Call, answer: Answer) -> None:
        """Count an answer, and keep it until its step's try ends: a lost one asks again."""
        self._observer.batched(BatchEnd.ANSWERED)
        self._charge(call.caller, answer.usage)
        spend(llm_tokens=answer.usage.computed)
        this_try = TRY.get()
        if this_try is None:
            self._forget(call)
        else:
            this_try.at_end(lambda: self._forget(call))

    def _give_up(self, call: _Call, errors: SdkErrors, *, late: bool) -> None:
        """Give a batch up; what it still costs is counted."""
        self._end(call, BatchEnd.LATE if late else BatchEnd.FAILED)
        if late:
            log.info("%s: batch %s is late", self._title, call.request.batch)
            self._begin(self._follow(call, errors))

    def _end(self, call: _Call, end: BatchEnd) -> None:
        self._observer.batched(end)
        self._forget(call)

    def _forget(self, call: _Call) -> None:
        self._begin(self._forgotten(call, call.owner))

    async def _forgotten(self, call: _Call, owner: BatchOwner) -> bool:
        for pause in (1.0, 5.0, 25.0, 0.0):  # then its time to live ends it
            try:
                return await self._kept.forget(call.request, owner)
            except StoreUnavailable:
                await self._stops(pause)
        return False

    def _leave(self, call: _Call, errors: SdkErrors, *, cancels: bool) -> None:
        """Leave a call's batch to others; cancel it if no call takes it."""
        if not call.request.batch:
            self._forget(call)
            return
        self._observer.batched(BatchEnd.LEFT)
        self._begin(self._left(call, errors, cancels=cancels))

    async def _left(self, call: _Call, errors: SdkErrors, *, cancels: bool) -> None:
        try:
            owned = await self._kept.keep(call.request, call.owner, then=FREE)
        except StoreUnavailable:
            return
        if not owned or not cancels:
            return
        await self._stops(self._rules.grace)
        if await self._forgotten(call, FREE):
            log.debug("%s: no call waits for batch %s", self._title, call.request.batch)
            polled = await self._poll(call.request, errors, cancels=True)
            await self._follow(call, errors, polled)

    async def _follow(
        self, call: _Call, errors: SdkErrors, polled: Answer | float | None = 0.0
    ) -> None:
        """Count what a canceled batch costs, if it ends with an answer all the same."""
        until, pause = time.monotonic() + _FOLLOWED, self._rules.first
        while isinstance(polled, float):
            await self._stops(max(pause, polled))
            stopping = self._closing.is_set() or self._governor.draining.is_set()
            if stopping or time.monotonic() > until:
                return
            pause = min(2 * pause, self._rules.longest)
            polled = await self._poll(call.request, errors)
        if polled is not None:
            self._charge(call.caller, polled.usage)
            spend(llm_tokens=polled.usage.computed)

    def _charge(self, caller: StepCaller, usage: Usage) -> None:
        """Count tokens. In budgets, one of a batch is a half: about its price."""
        self._observer.spent(usage)
        tokens = -(-usage.charged // 2)
        self._governor.charge(caller.namespace, tokens, usage.cache_read_tokens)

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _logged(work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except Exception:
        log.exception("a batch is left as it is")
