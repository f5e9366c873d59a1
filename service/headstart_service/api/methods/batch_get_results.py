"""BatchGetResults: returns what exists of many runs, after one wait for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from headstart.v1 import precompute_pb2 as pb

from ...domain import RunKey
from ...domain.errors import AnswerTooLarge, Violation
from ..batch_errors import error_of, late
from ..call_limits import CallLimit
from ..deadline import Deadline, answered_within
from ..dependencies import Call, Dependencies
from ..messages import prefix
from ..request_rules import batch_keys, refuse, repeated_violations, seconds
from ..result_parts import part_of
from ..results.outgoing import Parts
from ..step_names import StepNames
from .get_results import MAX_WAIT

_MAX_WAITING: Final = 50_000
"""Keys that the batches of a process wait for at once: each takes some 5 kB."""
_MOST_BYTES: Final = 62 * 1024 * 1024
"""Bytes of the results of one response: clients receive 64 MiB, and the largest run has 60."""
_NOW: Final = Deadline(0.0, 0.0)
_RESPONSE: Final = pb.BatchGetResult.RESPONSE_FIELD_NUMBER
_ERROR: Final = pb.BatchGetResult.ERROR_FIELD_NUMBER
Item: TypeAlias = tuple[bytes, bytes, bytes]
"""One result in pieces, of which the last is the largest."""


@dataclass(frozen=True, slots=True)
class BatchGet:
    """A valid question for the results of many runs; `wait` is in seconds."""

    keys: Sequence[RunKey]
    steps: Sequence[str]
    result_steps: Sequence[str]
    wait: float
    min_ready: int
    partials: bool


class BatchGetResults:
    """Reads results side by side. Its responses are serialized, as GetResults' are."""

    def __init__(self, api: Dependencies, most_bytes: int = _MOST_BYTES) -> None:
        """Return results of at most so many bytes, and errors for what is beyond."""
        self._most_bytes = most_bytes
        self._reader = api.reader
        self._limit = CallLimit("keys of BatchGetResults", _MAX_WAITING)

    def parse(self, request: pb.BatchGetResultsRequest) -> BatchGet:
        """Return what the request asks for. Raises InvalidRequest."""
        violations: list[Violation] = []
        keys = batch_keys(request, violations)
        violations += repeated_violations("required_steps", request.required_steps)
        violations += repeated_violations("result_steps", request.result_steps)
        wait = seconds(request, "wait", 0, MAX_WAIT, 0.0, violations)
        if not 0 <= request.min_ready <= len(request.keys):
            rule = f"must be 0 to {len(request.keys)}, the number of keys, is {request.min_ready}"
            violations.append(Violation("min_ready", rule))
        refuse(violations)
        steps, result_steps = StepNames(request.required_steps), StepNames(request.result_steps)
        partials = request.partial_results
        return BatchGet(keys, steps, result_steps, wait, request.min_ready, partials)

    async def handle(self, request: pb.BatchGetResultsRequest, call: Call) -> Parts:
        """Return what exists of each run, when enough have settled or the wait is over."""
        get = self.parse(request)
        batch = _Batch(
            get, Deadline.of_call(get.wait, call.time_left, len(get.keys)), self._most_bytes
        )
        if call.time_left is not None:
            batch.ends = asyncio.get_running_loop().time() + answered_within(call.time_left)
        results: list[Item | None] = [self._ready(batch, key) for key in get.keys]
        if missing := [place for place, found in enumerate(results) if found is None]:
            enough = (get.min_ready or len(results)) - (len(results) - len(missing))
            with self._limit.several(len(missing)):
                missing = await self._wait(batch, results, missing, enough)
                if missing and not batch.overdue:
                    batch.deadline = _NOW
                    missing = await self._wait(batch, results, missing, len(missing))
            for place in missing:
                results[place] = _LATE
        # The results are megabytes: joining the parts copies each once.
        return Parts([part for item in results if item is not None for part in item])

    def _ready(self, batch: _Batch, key: RunKey) -> Item | None:
        """Return the result of a run that this process keeps."""
        if batch.get.steps or batch.get.result_steps or batch.get.partials:
            return None  # they are checked, or read, where the answer is read
        answer = self._reader.ready(key)
        return None if answer is None else batch.item(answer.data)

    async def _wait(
        self,
        batch: _Batch,
        results: list[Item | None],
        missing: Sequence[int],
        enough: int,
    ) -> list[int]:
        """Fill in the missing results, once `enough` of them have settled or the wait is over.

        Return the places of those that are still missing.
        """
        settled = asyncio.Event()
        left = enough

        def note(task: asyncio.Task[Item]) -> None:
            nonlocal left
            left -= not task.cancelled()
            if left <= 0:
                settled.set()

        if enough <= 0:
            batch.deadline, left = _NOW, len(missing)
        async with asyncio.TaskGroup() as group:
            tasks = {}
            for place in missing:
                tasks[place] = group.create_task(self._result(batch, batch.get.keys[place]))
                tasks[place].add_done_callback(note)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(batch.ends):
                    await settled.wait()
            for task in tasks.values():
                task.cancel()  # does nothing to one that has ended
        unsettled = []
        for place, task in tasks.items():
            if task.cancelled():
                unsettled.append(place)
            else:
                results[place] = task.result()
        return unsettled

    async def _result(self, batch: _Batch, key: RunKey) -> Item:
        """Return one result, or why there is none."""
        get = batch.get
        try:
            answer = await self._reader.get(
                key, get.steps, batch.deadline, result_steps=get.result_steps
            )
            data = part_of(answer, get.result_steps)
            if get.partials:
                pieces = await self._reader.partials(key, answer, {}, get.result_steps)
                data += pb.GetResultsResponse(partial_results=pieces).SerializeToString()
        except Exception as error:  # noqa: BLE001  # it is the result of this item
            return _error(error_of(error))
        return batch.item(data)


@dataclass(slots=True)
class _Batch:
    """One call while it is served."""

    get: BatchGet
    deadline: Deadline
    """Of each read."""
    most_bytes: int
    ends: float | None = None
    """When it must be answered, on the loop's clock; None if its caller has no deadline."""
    size: int = 0
    """Bytes of the results so far."""

    @property
    def overdue(self) -> bool:
        """Whether it must be answered now."""
        return self.ends is not None and asyncio.get_running_loop().time() >= self.ends

    def item(self, data: bytes) -> Item:
        """Return the result of a key, or an error if the response would become too large."""
        if self.size and self.size + len(data) > self.most_bytes:
            return _error(error_of(AnswerTooLarge(_FULL.format(self.most_bytes))))
        self.size += len(data)
        return _item(_RESPONSE, data)


_FULL: Final = "one call returns results of at most {} bytes: read this key in another call"


def _error(error: pb.Error) -> Item:
    return _item(_ERROR, error.SerializeToString())


def _item(field: int, data: bytes) -> Item:
    """Return a BatchGetResult with this field, as a field of the response, in pieces."""
    inner = prefix(field, len(data))
    return prefix(1, len(inner) + len(data)), inner, data


_LATE: Final = _error(late())
