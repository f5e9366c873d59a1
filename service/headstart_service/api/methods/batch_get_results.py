"""BatchGetResults: returns what exists of many runs, after one wait for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from headstart.v1 import precompute_pb2 as pb

from ...domain import RunKey
from ...domain.errors import Violation
from ..batch_errors import error_of
from ..call_limits import CallLimit
from ..deadline import Deadline
from ..dependencies import Call, Dependencies
from ..messages import prefix
from ..request_rules import batch_keys, refuse, repeated_violations, seconds
from ..result_parts import part_of
from .get_results import MAX_WAIT

_MAX_WAITING: Final = 50_000
"""Keys that the batches of a process wait for at once: each takes some 5 kB."""
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


class BatchGetResults:
    """Reads results side by side. Its responses are serialized, as GetResults' are."""

    def __init__(self, api: Dependencies) -> None:
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
        return BatchGet(keys, request.required_steps, request.result_steps, wait, request.min_ready)

    async def handle(self, request: pb.BatchGetResultsRequest, call: Call) -> bytes:
        """Return what exists of each run, when enough have settled or the wait is over."""
        get = self.parse(request)
        deadline = Deadline.of_call(get.wait, call.time_left)
        results: list[Item | None] = [self._ready(get, key) for key in get.keys]
        if missing := [place for place, found in enumerate(results) if found is None]:
            enough = (get.min_ready or len(results)) - (len(results) - len(missing))
            with self._limit.several(len(missing)):
                await self._wait(get, deadline, results, missing, enough)
        # The results are megabytes: this copies each once.
        return b"".join(part for item in results if item is not None for part in item)

    def _ready(self, get: BatchGet, key: RunKey) -> Item | None:
        """Return the result of a run that this process keeps."""
        if get.steps or get.result_steps:
            return None  # they are checked where the answer is read
        answer = self._reader.ready(key)
        return None if answer is None else _item(_RESPONSE, answer.data)

    async def _wait(
        self,
        get: BatchGet,
        deadline: Deadline,
        results: list[Item | None],
        missing: Sequence[int],
        enough: int,
    ) -> None:
        """Fill in the missing results, once `enough` of them have settled or the wait is over."""
        settled = asyncio.Event()
        left = enough

        def note(task: asyncio.Task[Item]) -> None:
            nonlocal left
            left -= not task.cancelled()
            if left <= 0:
                settled.set()

        if enough <= 0:
            deadline, left = _NOW, len(missing)
        async with asyncio.TaskGroup() as group:
            tasks = {}
            for place in missing:
                tasks[place] = group.create_task(self._result(get, get.keys[place], deadline))
                tasks[place].add_done_callback(note)
            await settled.wait()
            for task in tasks.values():
                task.cancel()  # does nothing to one that has ended
        unsettled = []
        for place, task in tasks.items():
            if task.cancelled():
                unsettled.append(place)
            else:
                results[place] = task.result()
        if unsettled:
            await self._wait(get, _NOW, results, unsettled, len(unsettled))

    async def _result(self, get: BatchGet, key: RunKey, deadline: Deadline) -> Item:
        """Return one result, or why there is none."""
        try:
            answer = await self._reader.get(key, get.steps, deadline, result_steps=get.result_steps)
        except Exception as error:  # noqa: BLE001  # it is the result of this item
            return _item(_ERROR, error_of(error).SerializeToString())
        return _item(_RESPONSE, part_of(answer, get.result_steps))


def _item(field: int, data: bytes) -> Item:
    """Return a BatchGetResult with this field, as a field of the response, in pieces."""
    inner = prefix(field, len(data))
    return prefix(1, len(inner) + len(data)), inner, data
