"""Reads results: at once when they are there, else after the wait that the caller can afford."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from headstart._for_service import unknown_among

from ...base.metric_labels import ResultsOutcome
from ...domain import RunKey
from ...domain.errors import InvalidRequest, RunNotFound, Violation
from ...pipeline.registry import Registry
from ..call_observer import CallObserver, CallObservers
from .answer import Answer
from .near_cache import NearCache
from .waiting import Hub

_GRACE_SHARE = 0.05
_GRACE_MIN = 0.01
_GRACE_MAX = 0.1


class ResultReader:
    """Gets and watches results."""

    def __init__(
        self,
        hub: Hub,
        cache: NearCache,
        registry: Registry,
        observer: CallObserver | None = None,
    ) -> None:
        self._hub = hub
        self._cache = cache
        self._registry = registry
        self._observer = observer or CallObservers()

    def ready(self, key: RunKey) -> Answer | None:
        """The results, if this process knows them and the run has ended."""
        return self._cache.get(key)

    async def get(self, key: RunKey, steps: Sequence[str], wait: float, min_revision: int) -> bytes:
        """The serialized results, after at most `wait` seconds for `steps` (none: all) to end.

        With a `min_revision` they are read from the store after this call has come. Whatever the
        process knew before may be older, though its revision is not: a reset repeats revisions.

        Raises RunNotFound, InvalidRequest for a step that the run's pipeline does not have, and
        StoreUnavailable when nothing could be read at all.
        """
        began = time.perf_counter()
        waited = False
        try:
            answer = None if min_revision else self._cache.get(key)
            if answer is None:
                self._cache.misses += 1
                if wait > 0:
                    answer, waited = await self._wait(key, steps, wait, min_revision)
                else:
                    answer = await self._hub.read(key)
                if answer.revision < min_revision:
                    raise RunNotFound(key.namespace, f"{key.key} revision {min_revision}")
        except RunNotFound:
            self._observer.results(ResultsOutcome.MISSING, time.perf_counter() - began)
            raise
        if violations := self._violations(answer, steps):
            raise InvalidRequest(violations)
        outcome = ResultsOutcome.PARTIAL
        if answer.holds(steps or answer.states):
            outcome = ResultsOutcome.WAITED if waited else ResultsOutcome.READY
        self._observer.results(outcome, time.perf_counter() - began)
        return answer.data

    async def watch(self, key: RunKey) -> AsyncGenerator[Answer]:
        """The results now and after every change, until the run has ended."""
        async with aclosing(self._hub.watch(key)) as answers:
            async for answer in answers:
                yield answer
                if answer.final:
                    return

    def outdate(self, key: RunKey) -> None:
        """Give nobody here what was known of this run before it was changed."""
        self._hub.outdate(key)

    async def _wait(
        self, key: RunKey, steps: Sequence[str], wait: float, min_revision: int
    ) -> tuple[Answer, bool]:
        """The answer, and whether it was not the first that was seen."""
        unmet = 0

        def met(answer: Answer) -> bool:
            nonlocal unmet
            # What makes the request wrong ends its wait, too.
            done = (
                answer.settles(steps)
                or answer.revision < min_revision
                or bool(self._violations(answer, steps))
            )
            unmet += not done
            return done

        answer = await self._hub.wait(
            key,
            met,
            frozenset(steps),
            deadline=asyncio.get_running_loop().time() + wait,
            grace=_grace(wait),
            min_revision=min_revision,
        )
        return answer, unmet > 0

    def _violations(self, answer: Answer, steps: Sequence[str]) -> list[Violation]:
        """Which of these steps the run's pipeline does not have."""
        if all(step in answer.states for step in steps):
            return []
        pipeline = self._registry.find(answer.pipeline)
        known = set(answer.states) | set(pipeline.by_name if pipeline else ())
        return [Violation(f"required_steps[{i}]", rule) for i, rule in unknown_among(steps, known)]


def _grace(wait: float) -> float:
    """How long after a wait its last look may end: within the margin that the caller left."""
    return min(max(wait * _GRACE_SHARE, _GRACE_MIN), _GRACE_MAX)
