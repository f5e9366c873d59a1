"""Reads results: at once when they are there, else after the wait that the caller can afford."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from ..domain import RunKey
from ..engine.registry import Registry
from ..errors import InvalidRequest, RunNotFound, StoreUnavailable, Violation
from .answer import Answer, answer_from
from .hub import Hub, Topic
from .near_cache import NearCache
from .ports import RunStore

_BREATH = 0.1
"""Seconds between looks while the store is away and a caller still waits."""
_GRACE_SHARE = 0.05
_GRACE_MIN = 0.01
_GRACE_MAX = 0.1


class ResultReader:
    """Gets and watches results. Waiters of one run that are woken together share one read."""

    def __init__(self, store: RunStore, hub: Hub, cache: NearCache, registry: Registry) -> None:
        self._store = store
        self._hub = hub
        self._cache = cache
        self._registry = registry
        self._shared: dict[Topic, tuple[int, asyncio.Task[Answer]]] = {}

    async def get(self, key: RunKey, steps: Sequence[str], wait: float, min_revision: int) -> bytes:
        """The serialized results, after at most `wait` seconds for `steps` (none: all) to end.

        Raises RunNotFound, InvalidRequest for a step that the run's pipeline does not have, and
        StoreUnavailable when nothing could be read at all.
        """
        cached = self._cache.get(key, min_revision)
        if cached is not None:
            self._check_steps(cached, steps)
            return cached.data
        if wait <= 0:
            answer = await self._read(key, min_revision)
            self._check_steps(answer, steps)
            return answer.data
        clock = asyncio.get_running_loop().time
        deadline = clock() + wait
        with self._hub.listen(key) as listener:
            look = listener.topic.generation
            answer = await self._read(key, min_revision)
            self._check_steps(answer, steps)
            blind = False
            while (missing := answer.missing(steps)) and not self._hub.closing:
                if (left := deadline - clock()) <= 0:
                    break
                listener.expect(missing if steps else set(), since=look)
                await listener.wait(min(left, _BREATH) if blind else left)
                if not blind and self._hub.hearing and listener.topic.generation == look:
                    break  # the time is over and nothing has happened
                look = listener.topic.generation
                newer = await self._look_again(listener.topic, deadline + _grace(wait))
                blind = newer is None
                answer = newer or answer
            return answer.data

    async def watch(self, key: RunKey) -> AsyncGenerator[bytes]:
        """The serialized results now and after every change, until the run has ended."""
        with self._hub.listen(key, everything=True) as listener:
            look = listener.topic.generation
            answer = await self._read(key, 0)
            yield answer.data
            blind = False
            while not answer.final:
                listener.expect(set(), since=look)
                await listener.wait(_BREATH if blind else None)
                look = listener.topic.generation
                newer = await self._look_again(listener.topic, None)
                blind = newer is None
                if newer is not None and newer.data != answer.data:
                    answer = newer
                    yield answer.data

    async def _read(self, key: RunKey, min_revision: int) -> Answer:
        with self._cache.reading(key) as reading:
            answer = answer_from(await self._store.read(key))
            if answer.revision < min_revision:
                raise RunNotFound(key.namespace, f"{key.key} revision {min_revision}")
            self._cache.put(reading, answer)
            return answer

    async def _look_again(self, topic: Topic, until: float | None) -> Answer | None:
        """What is there now; None when the store is away, or did not say until then."""
        try:
            async with asyncio.timeout_at(until):
                return await self._shared_read(topic)
        except (StoreUnavailable, TimeoutError):
            return None

    async def _shared_read(self, topic: Topic) -> Answer:
        """One read for all who wait for a run, as long as nothing new is announced."""
        generation, task = self._shared.get(topic, (-1, None))
        if task is None or generation != topic.generation:
            task = asyncio.create_task(self._read(topic.key, 0), name=f"read {topic.key}")
            self._shared[topic] = topic.generation, task
            task.add_done_callback(lambda done: self._forget(topic, done))
        # Shielded: a waiter that goes away must not cancel what others wait for.
        return await asyncio.shield(task)

    def _forget(self, topic: Topic, task: asyncio.Task[Answer]) -> None:
        if self._shared.get(topic, (0, None))[1] is task:
            del self._shared[topic]
        if not task.cancelled():
            task.exception()  # whoever still waits gets it; nobody may

    def _check_steps(self, answer: Answer, steps: Sequence[str]) -> None:
        if all(step in answer.states for step in steps):
            return
        pipeline = self._registry.find(answer.pipeline)
        known = set(answer.states) | set(pipeline.by_name if pipeline else ())
        violations = [
            Violation(f"required_steps[{i}]", f"must be one of: {', '.join(sorted(known))}")
            for i, step in enumerate(steps)
            if step not in known
        ]
        if violations:
            raise InvalidRequest(violations)


def _grace(wait: float) -> float:
    """How long after a wait its last look may end: within the margin that the caller left."""
    return min(max(wait * _GRACE_SHARE, _GRACE_MIN), _GRACE_MAX)
