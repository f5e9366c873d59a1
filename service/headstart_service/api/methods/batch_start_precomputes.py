"""BatchStartPrecomputes: starts many runs, each as StartPrecompute does."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from headstart.v1 import precompute_pb2 as pb

from ...auth.grants import Verb
from ...domain import RunKey
from ...domain.errors import HeadstartError, Violation
from ..batch_errors import error_of
from ..dependencies import Call, Dependencies
from ..refusals import REFUSED
from ..request_rules import batch_violations, namespace_of, refuse, run_key
from ..write_log import of_write
from .start_precompute import StartPrecompute

log = logging.getLogger(__name__)

METHOD: Final = "BatchStartPrecomputes"
_NAMED: Final = 10
"""Namespaces of a batch that its log line names."""
_AT_ONCE: Final = 32
"""Starts that are parsed before other calls have their turn: some milliseconds."""


class BatchStartPrecomputes:
    """Starts runs side by side; the store's calls of a partition travel together."""

    def __init__(self, api: Dependencies) -> None:
        self._start = StartPrecompute(api)
        self._refusals = api.refusals

    def parse(
        self, request: pb.BatchStartPrecomputesRequest
    ) -> Sequence[pb.StartPrecomputeRequest]:
        """Return the starts, unchecked. Raises InvalidRequest for none or too many."""
        violations: list[Violation] = batch_violations("requests", request.requests)
        refuse(violations)
        return request.requests

    async def handle(
        self, request: pb.BatchStartPrecomputesRequest, call: Call
    ) -> pb.BatchStartPrecomputesResponse:
        """Start each run, or report why it was not started."""
        starts = self.parse(request)
        tasks: list[asyncio.Task[pb.BatchStartResult]] = []
        refused: dict[type[HeadstartError], tuple[RunKey, HeadstartError]] = {}
        of_key: dict[RunKey, asyncio.Task[pb.BatchStartResult]] = {}
        async with asyncio.TaskGroup() as group:
            for number, start in enumerate(starts):
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)
                key = run_key(start)
                task = group.create_task(self._result(start, call, of_key.get(key), refused))
                of_key[key] = task
                tasks.append(task)
        results = [task.result() for task in tasks]
        _log(starts, results, call)
        for run, error in refused.values():
            self._refusals.note(METHOD, error, token=_token(call), run=partial(_same, run))
        return pb.BatchStartPrecomputesResponse(results=results)

    async def _result(
        self,
        request: pb.StartPrecomputeRequest,
        call: Call,
        before: asyncio.Task[pb.BatchStartResult] | None,
        refused: dict[type[HeadstartError], tuple[RunKey, HeadstartError]],
    ) -> pb.BatchStartResult:
        """Start one run, after the start `before` of its key.

        Note the first refusal of each kind in `refused`: the whole batch has one line of it.
        """
        if before is not None:
            await before
        try:
            if call.grant is not None:
                call.grant.demand(Verb.WRITE, namespace_of(request))
            response = await self._start.start(request, call, logging.DEBUG)
        except REFUSED as error:
            refused.setdefault(type(error), (run_key(request), error))
            return pb.BatchStartResult(error=error_of(error))
        except Exception as error:  # noqa: BLE001  # it is the result of this item
            return pb.BatchStartResult(error=error_of(error))
        return pb.BatchStartResult(response=response)


def _log(
    starts: Sequence[pb.StartPrecomputeRequest], results: Sequence[pb.BatchStartResult], call: Call
) -> None:
    """Write one line for the batch; each start has one of level debug."""
    outcomes = Counter(map(_outcome, results))
    namespaces = sorted({namespace_of(start) for start in starts})
    text = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
    counts: dict[str, Any] = {"count": len(starts), "outcomes": dict(outcomes)}
    counts["namespaces"] = namespaces[:_NAMED]
    extra = of_write(call, METHOD, "started", of="batch", **counts)
    log.info("a batch of %d starts: %s", len(starts), text, extra=extra)


def _same(run: RunKey) -> RunKey:
    return run


def _token(call: Call) -> str:
    return call.grant.name if call.grant else ""


def _outcome(result: pb.BatchStartResult) -> str:
    if result.HasField("error"):
        return "refused"
    name = pb.StartOutcome.Name(result.response.outcome)
    return name.removeprefix("START_OUTCOME_").lower()
