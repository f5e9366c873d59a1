"""Reads results: at once when they are there, else after the wait that the caller can afford."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing

from headstart.v1 import precompute_pb2 as pb

from ...base.metric_labels import ResultsOutcome
from ...domain import Cursors, RunKey
from ...domain.errors import InvalidRequest, RunNotFound, Violation
from ...pipeline.registry import Registry
from ..call_observer import CallObserver, CallObservers
from ..deadline import Deadline
from ..step_names import StepNames
from .answer import Answer
from .followers import Follower, partials_of
from .growing import growing
from .near_cache import NearCache
from .waiting import Waiting


class ResultReader:
    """Gets and watches results."""

    def __init__(
        self,
        waiting: Waiting,
        cache: NearCache,
        registry: Registry,
        observer: CallObserver | None = None,
    ) -> None:
        self._waiting = waiting
        self._cache = cache
        self._registry = registry
        self._observer = observer or CallObservers()
        self.ready: Callable[[RunKey], Answer | None] = cache.get
        """Returns the results, if this process knows them and the run has ended."""

    async def get(
        self,
        key: RunKey,
        steps: Sequence[str],
        deadline: Deadline,
        min_revision: int = 0,
        result_steps: Sequence[str] = (),
    ) -> Answer:
        """Return the results, once `steps` (none: all) have ended or the wait is over.

        With a `min_revision` they are read from the store after this call has come. What the
        process knew before may be older, even with the same revision: a reset repeats revisions.

        Raises RunNotFound, StoreUnavailable when nothing could be read at all, and InvalidRequest
        for a step that the run's pipeline does not have, also of `result_steps`.
        """
        began = time.perf_counter()
        unmet = 0  # answers that came before the last one

        def met(answer: Answer) -> bool:
            nonlocal unmet
            # An answer that proves the request wrong ends the wait, too.
            done = (
                answer.settles(steps)
                or answer.revision < min_revision
                or bool(self._violations(answer, steps))
            )
            unmet += not done
            return done

        try:
            answer = None if min_revision else self._cache.get(key)
            if answer is None:
                self._cache.misses += 1
                if deadline.wait > 0:
                    answer = await self._waiting.wait(
                        key, met, frozenset(steps), deadline=deadline, min_revision=min_revision
                    )
                else:
                    answer = await self._waiting.read(key)
                if answer.revision < min_revision:
                    raise RunNotFound(key.namespace, f"{key.key} revision {min_revision}")
        except RunNotFound:
            self._observer.results(ResultsOutcome.MISSING, time.perf_counter() - began)
            raise
        violations = self._violations(answer, steps)
        violations = [*violations, *self.unknown_results(answer, result_steps)]
        if violations:
            raise InvalidRequest(violations)
        outcome = ResultsOutcome.PARTIAL
        if answer.holds(steps) if steps else answer.complete:
            outcome = ResultsOutcome.WAITED if unmet else ResultsOutcome.READY
        self._observer.results(outcome, time.perf_counter() - began)
        return answer

    async def watch(self, key: RunKey) -> AsyncGenerator[Answer]:
        """Yield the results now and after every change, until the run has ended."""
        async with aclosing(self._waiting.watch(key)) as answers:
            async for answer in answers:
                yield answer
                if answer.final:
                    return

    async def partials(
        self, key: RunKey, answer: Answer, cursors: Cursors, steps: Collection[str]
    ) -> list[pb.PartialResult]:
        """Return what the steps of this answer's run have given beyond the cursors."""
        return await partials_of(self._waiting.store, key, answer.run, cursors, steps)

    async def watch_growing(
        self, key: RunKey, cursors: Cursors, steps: Collection[str]
    ) -> AsyncGenerator[tuple[Answer | None, Sequence[pb.PartialResult]]]:
        """Yield what `watch` yields, and what steps give before they end, as it comes.

        A step's pieces come before, or with, the first answer in which it has ended.
        """
        follower = Follower(self._waiting.store, key, cursors, steps)
        with self._waiting.followers.following(follower, key):
            async with aclosing(growing(self.watch(key), follower)) as grown:
                async for each in grown:
                    yield each

    def outdate(self, key: RunKey) -> None:
        """Serve nothing that this process knew of the run before it was changed."""
        self._waiting.outdate(key)

    def unknown_results(self, answer: Answer, steps: Sequence[str]) -> Sequence[Violation]:
        """Return a violation for each of `result_steps` that the run's pipeline does not have."""
        return self._violations(answer, steps, "result_steps")

    def _violations(
        self, answer: Answer, steps: Sequence[str], field: str = "required_steps"
    ) -> Sequence[Violation]:
        if not steps or all(step in answer.states for step in steps):
            return ()
        pipeline = self._registry.find(answer.pipeline)
        known = set(answer.states) | set(pipeline.by_name if pipeline else ())
        names = steps if isinstance(steps, StepNames) else StepNames(steps)
        return names.unknown(field, known)
