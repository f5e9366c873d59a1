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
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
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
from ..worker.occupancy import is_alone, is_handed_on
from ..worker.step_caller import CALLER, StepCaller
from ..worker.step_deadline import seconds_left, step_stopped
from ..worker.step_try import TRY, StepTry
from ..worker.upkeep import ended
from .batch_requests import BatchRequests, Poll
from .batch_rules import BatchRules
from .batched_call import BatchedCall
from .dialect import Question
from .governor import Governor
from .model_request import ModelRequest
from .permit import Permit
from .provider_observer import ANSWERED, CANCELLED, LanguageModelObserver

log = logging.getLogger(__name__)

_SHARE: Final = 0.1
"""Of the time that a batch has taken: the pause before the next poll."""
_JITTER: Final = 0.25
_CLOSING: Final = 5.0
"""Seconds in which batches that no run waits for may be canceled while the worker stops."""
_GLANCE: Final = 2.0
"""Seconds after which a caller that waits gets a direct call, whatever has become of the batch."""
_FOLLOWED: Final = 900.0
"""Seconds for which a canceled batch is watched: it may end with an answer, which is paid."""


class BatchedCalls:
    """Has questions to one model answered in batches."""

    def __init__(
        self,
        requests: BatchRequests,
        kept: MessageBatches,
        governor: Governor,
        observer: LanguageModelObserver,
        rules: BatchRules,
        *,
        identity: str,
        title: str,
    ) -> None:
        """Ask by `requests` the model of this identity. Messages call the API `title`."""
        self._requests = requests
        self._kept = kept
        self._governor = governor
        self._observer = observer
        self._rules = rules
        self._identity = identity
        self._title = title
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

    async def answer(self, question: Question) -> Answer | None:
        """Return the answer of a batch; None for a question that is to be asked directly.

        Raises ExecutorUnavailable when the worker drains: the next one goes on with the batch.
        """
        caller, this_try = CALLER.get(), TRY.get()
        if not caller.run_id or this_try is None:
            return None
        parameters = self._requests.parameters(question)
        call = await self._noted(caller, this_try, parameters)
        if call is None:
            return None
        this_try.at_end(call.news.set)
        with step_stopped(), caller.hurry.followed(call.news.set):
            answer = await self._answered(call, question, parameters)
        if answer is not None:
            self._deliver(call, answer)
        return answer

    async def _answered(
        self, call: BatchedCall, question: Question, parameters: Mapping[str, Any]
    ) -> Answer | None:
        """Return the answer of the call's batch, which is left to others if this is stopped."""
        try:
            adopted = bool(call.request.batch)
            if not adopted:
                await self._hand_in(call, question, parameters)
            if not call.request.batch:
                self._end(call, BatchEnd.FAILED if call.left else BatchEnd.LATE)
                return None
            return await self._awaited(call, adopted=adopted)
        except asyncio.CancelledError:
            goes_on = self._governor.draining.is_set() or is_handed_on()
            self._leave(call, cancels=not goes_on)
            raise
        except ExecutorUnavailable:
            self._leave(call, cancels=False)
            raise

    async def _noted(
        self, caller: StepCaller, this_try: StepTry, parameters: Mapping[str, Any]
    ) -> BatchedCall | None:
        """Note a request, or take one over that has lost its owner; None to ask directly."""
        owner = BatchOwner(caller.run_id, caller.attempt)
        new = BatchedRequest(self._digest(caller, parameters), uuid.uuid4().hex)
        # A run that has its worker to itself must not keep it waiting.
        needed_at = 0.0 if is_alone() else caller.needed_at
        create = needed_at - time.monotonic() >= self._rules.least
        try:
            request = await self._kept.take(new, owner, create=create)
        except (StoreUnavailable, CapacityExhausted) as error:
            log.warning("%s: no batch: %s", self._title, error)
            return None
        if request is None:
            return None
        margin = max(self._rules.margin, seconds_left() or 0.0)
        return BatchedCall(caller, owner, request, needed_at - margin, this_try)

    def _digest(self, caller: StepCaller, parameters: Mapping[str, Any]) -> str:
        asks = [caller.namespace, caller.key, caller.step, self._identity, parameters]
        if caller.fresh:
            asks.append(caller.run_id)
        return hashlib.sha256(json.dumps(asks, sort_keys=True).encode()).hexdigest()

    async def _hand_in(
        self, call: BatchedCall, question: Question, parameters: Mapping[str, Any]
    ) -> None:
        """Hand the call's request in; it stays without a batch if the API takes none in time."""
        pause, tokens = self._rules.first, question.estimate + question.max_tokens
        while call.left:
            try:
                permit = await call.unless_news(self._governor.permit(tokens), _unused)
            except StepFailed as error:
                log.info("%s: no batch: %s", self._title, error)
                break
            if permit is None:
                await self._pause(call, 0.0)  # to be stopped with the step
                break
            tried, outcome = self._requests.new(), CallOutcome.LOST
            try:
                batch = await self._handed_in(call, parameters, tried)
                outcome = CallOutcome.ANSWERED if batch else outcome
            except StepFailed as error:
                log.info("%s: no batch: %s", self._title, error)
                if not tried.may_pass:
                    break
            else:
                if batch:
                    log.debug("%s: %s waits for batch %s", self._title, call.caller.key, batch)
                    call.request = replace(call.request, batch=batch)
                    await self._owns(call)
                    break
            finally:
                # Batches have limits of their own: a refusal shows nothing of direct calls.
                permit.settle(outcome, ANSWERED if outcome is CallOutcome.ANSWERED else CANCELLED)
            await self._pause(call, max(pause, tried.retry_after))
            pause = min(2 * pause, self._rules.longest)

    async def _handed_in(
        self, call: BatchedCall, parameters: Mapping[str, Any], tried: ModelRequest
    ) -> str:
        """Return the name of a new batch; empty if there is news of the call before it is known.

        Then, or if this is cancelled meanwhile, the batch is canceled once its name is known.
        """
        handing = self._requests.hand_in(parameters, call.request.id, tried)
        # It may fail in the moment in which this is cancelled: no code asks for its failure then.
        handing.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await call.first(handing)
            return handing.result() if handing.done() else ""
        finally:
            if not handing.done():
                self._begin(self._unwanted(call, handing))

    async def _unwanted(self, call: BatchedCall, handing: asyncio.Task[str]) -> None:
        with suppress(StepFailed):
            request = replace(call.request, batch=await handing)
            await self._cancel(replace(call, request=request))

    async def _awaited(self, call: BatchedCall, *, adopted: bool) -> Answer | None:
        """Return the answer of the call's batch; None once it is to be made directly."""
        since, pause = time.monotonic(), 0.0 if adopted else self._rules.first
        try:
            while True:
                await self._pause(call, pause)
                late = not call.left
                # A caller that waits has no time for the cancel of a batch.
                polled = await self._looked(call, cancels=late and bool(call.caller.needed_at))
                if polled is None:
                    await self._pause(call, 0.0)  # to be stopped with the step
                    polled, late = Poll(), True
                if polled.answer is not None:
                    return polled.answer
                if polled.ended or polled.lost or late:
                    self._give_up(call, polled, late=late)
                    return None
                share = (time.monotonic() - since) * _SHARE
                pause = max(
                    self._rules.first, min(self._rules.longest, max(share, polled.retry_after))
                )
                pause *= random.uniform(1, 1 + _JITTER)  # noqa: S311  # no secret
                if not await self._owns(call):
                    raise ExecutorUnavailable("another worker has the run, and waits for its batch")
        finally:
            spend(waited=time.monotonic() - since)  # no time that the step itself takes

    async def _looked(self, call: BatchedCall, *, cancels: bool) -> Poll | None:
        """Look at the batch; None if that takes too long for a caller that waits."""
        looking = asyncio.create_task(self._poll(call, cancels=cancels))
        try:
            await call.first(looking)
            await asyncio.wait({looking}, timeout=_GLANCE)
            return looking.result() if looking.done() else None
        finally:
            looking.cancel()
            await ended(looking)

    async def _poll(self, call: BatchedCall, *, cancels: bool) -> Poll:
        request, cancels = call.request, cancels and not call.canceled
        polled = await self._requests.poll(request.batch, request.id, cancels=cancels)
        call.canceled = call.canceled or polled.canceled
        return polled

    async def _pause(self, call: BatchedCall, seconds: float) -> None:
        """Wait for the next poll, at most until the call is to be made directly.

        Raises ExecutorUnavailable when the worker drains meanwhile. Raises CancelledError when the
        step ends: `gather`, for example, leaves other calls behind when one fails.
        """
        until = time.monotonic() + seconds
        while True:
            if call.this_try.ended:
                raise asyncio.CancelledError
            if self._closing.is_set() or self._governor.hands_on(call.caller.run):
                raise ExecutorUnavailable("the worker stops; another one waits for the batch")
            if (left := min(call.left, until - time.monotonic())) <= 0:
                return
            if self._governor.draining.is_set():
                # A call of the run is under way, and ends before the run is handed on.
                await asyncio.sleep(min(left, 1.0))
            else:
                await self._stops(left, call.news)

    async def _stops(self, seconds: float, *others: asyncio.Event) -> None:
        """Return after so many seconds, when the worker drains, or when the model is closed.

        Also when one of the `others` is set.
        """
        events = (self._governor.draining, self._closing, *others)
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def _owns(self, call: BatchedCall) -> bool:
        """Note the batch and its owner. Returns False when another worker has them."""
        try:
            return await self._kept.keep(call.request, call.owner, then=call.owner)
        except StoreUnavailable as error:
            log.debug("%s: batch %s is not noted: %s", self._title, call.request.batch, error)
            return True  # the next poll notes it

    def _deliver(self, call: BatchedCall, answer: Answer) -> None:
        """Count an answer, and keep it until its step's try ends: a lost one asks again."""
        self._observer.batched(BatchEnd.ANSWERED)
        self._charge(call.caller, answer.usage)
        spend(llm_tokens=answer.usage.computed)
        call.this_try.at_end(lambda: self._forget(call))

    def _give_up(self, call: BatchedCall, polled: Poll, *, late: bool) -> None:
        """Give a batch up; what it still costs is counted."""
        self._end(call, BatchEnd.LATE if late else BatchEnd.FAILED)
        if late:
            log.info("%s: batch %s is late", self._title, call.request.batch)
        if not polled.ended:
            self._begin(self._cancel(call, pause=self._rules.first if call.canceled else 0.0))

    def _end(self, call: BatchedCall, end: BatchEnd) -> None:
        self._observer.batched(end)
        self._forget(call)

    def _forget(self, call: BatchedCall) -> None:
        self._begin(self._forgotten(call, call.owner))

    async def _forgotten(self, call: BatchedCall, owner: BatchOwner) -> bool:
        for pause in (1.0, 5.0, 25.0, 0.0):  # then its time to live ends it
            try:
                return await self._kept.forget(call.request, owner)
            except StoreUnavailable:
                await self._stops(pause)
        return False

    def _leave(self, call: BatchedCall, *, cancels: bool) -> None:
        """Leave a call's batch to others; cancel it if no call takes it."""
        if not call.request.batch:
            self._forget(call)
            return
        self._observer.batched(BatchEnd.LEFT)
        self._begin(self._left(call, cancels=cancels))

    async def _left(self, call: BatchedCall, *, cancels: bool) -> None:
        try:
            owned = await self._kept.keep(call.request, call.owner, then=FREE)
        except StoreUnavailable:
            return
        if not owned or not cancels:
            return
        await self._stops(self._rules.grace)
        if await self._forgotten(call, FREE):
            log.debug("%s: no call waits for batch %s", self._title, call.request.batch)
            await self._cancel(call)

    async def _cancel(self, call: BatchedCall, *, pause: float = 0.0) -> None:
        """Cancel a batch, and count what it costs, if it ends with an answer all the same.

        Begins after a `pause`, in seconds.
        """
        until, polled = time.monotonic() + _FOLLOWED, Poll()
        while not polled.ended:
            await self._stops(max(pause, polled.retry_after))
            polled = await self._poll(call, cancels=True)
            stopping = self._closing.is_set() or self._governor.draining.is_set()
            if stopping or time.monotonic() > until:
                break
            pause = min(max(self._rules.first, 2 * pause), self._rules.longest)
        if polled.answer is not None:
            self._charge(call.caller, polled.answer.usage)
            spend(llm_tokens=polled.answer.usage.computed)

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


def _unused(permit: Permit) -> None:
    permit.settle(CallOutcome.UNUSED, "")
