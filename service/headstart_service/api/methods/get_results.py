"""GetResults: returns what exists of a run, after a wait if the caller asks for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from headstart.v1 import precompute_pb2 as pb

from ...domain import Cursors, RunKey
from ...domain.errors import Violation
from ..deadline import Deadline
from ..dependencies import Call, Dependencies
from ..partial_cursors import cursors_by_key
from ..request_rules import (
    checked_key,
    refuse,
    repeated_violations,
    revision_violations,
    run_key,
    seconds,
)
from ..result_parts import part_of
from ..results.answer import Answer
from ..step_names import StepNames

MAX_WAIT: Final = 600.0
_SECOND: Final = 1_000_000_000
"""Nanoseconds; as many or more are no part of a second."""


class Get(NamedTuple):
    """A valid question for results; `wait` is in seconds."""

    key: RunKey
    steps: Sequence[str]
    result_steps: Sequence[str]
    wait: float
    min_revision: int
    partials: bool
    cursors: Cursors


class GetResults:
    """Reads results. Its responses are serialized, because callers of one run share them."""

    def __init__(self, api: Dependencies) -> None:
        self._reader = api.reader

    def ready(self, request: pb.GetResultsRequest) -> Answer | None:
        """Return results of an ended run that this process keeps; None if `handle` must serve it.

        Most calls are answered so, and each takes some microseconds.
        """
        if (
            request.required_steps
            or request.result_steps
            or request.min_revision
            or request.partial_results
            or not 0 <= request.wait.seconds < MAX_WAIT
            or not 0 <= request.wait.nanos < _SECOND
        ):
            return None
        return self._reader.ready(run_key(request))

    def parse(self, request: pb.GetResultsRequest) -> Get:
        """Return what the request asks for. Raises InvalidRequest."""
        violations: list[Violation] = []
        key = checked_key(request, violations)
        min_revision = request.min_revision
        violations += repeated_violations("required_steps", request.required_steps)
        violations += repeated_violations("result_steps", request.result_steps)
        violations += revision_violations("min_revision", min_revision)
        wait = seconds(request, "wait", 0, MAX_WAIT, 0.0, violations)
        cursors = cursors_by_key(request, violations).get("", {})
        refuse(violations)
        steps, result_steps = StepNames(request.required_steps), StepNames(request.result_steps)
        partials = request.partial_results
        return Get(key, steps, result_steps, wait, min_revision, partials, cursors)

    async def handle(self, request: pb.GetResultsRequest, call: Call) -> bytes:
        """Return what exists, before the wait and the caller's deadline are over."""
        get = self.parse(request)
        deadline = Deadline.of_call(get.wait, call.time_left)
        answer = await self._reader.get(
            get.key, get.steps, deadline, get.min_revision, get.result_steps
        )
        data = part_of(answer, get.result_steps)
        if get.partials:
            pieces = await self._reader.partials(get.key, answer, get.cursors, get.result_steps)
            data += pb.GetResultsResponse(partial_results=pieces).SerializeToString()
        return data
