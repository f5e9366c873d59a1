"""ReportStep: keeps a step's result that a caller has computed."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final

from headstart.v1 import precompute_pb2 as pb

from ...domain import Report, RunKey
from ...domain.errors import Violation
from .. import messages
from ..dependencies import LARGE_REQUEST, Call, Dependencies
from ..reported_step import ReportedStep, is_of, step_record, violations_of
from ..request_rules import MAX_TTL, checked_key, refuse, seconds
from ..write_log import UNCHANGED, of_write

log = logging.getLogger(__name__)

METHOD: Final = "ReportStep"


@dataclass(frozen=True, slots=True)
class StepReport:
    """A report that is valid whatever pipeline its run has."""

    key: RunKey
    revision: int
    step: ReportedStep


class ReportStep:
    """Writes a reported step into the run that its caller has seen."""

    def __init__(self, api: Dependencies) -> None:
        self._api = api

    def parse(self, request: pb.ReportStepRequest) -> StepReport:
        """Return the report that the request holds. Raises InvalidRequest."""
        violations: list[Violation] = []
        key = checked_key(request, violations)
        elapsed = seconds(request, "elapsed", 0, MAX_TTL, 0.0, violations)
        violations += violations_of(request)
        refuse(violations)
        return StepReport(key, request.revision, ReportedStep.of(request, elapsed))

    async def handle(self, request: pb.ReportStepRequest, call: Call) -> pb.ReportStepResponse:
        """Keep the result, if its run still wants it. Raises RunNotFound, InvalidRequest."""
        reported = self.parse(request)
        key, step, store = reported.key, reported.step, self._api.store
        # The report is for this run: if the key has another run by then, that one stays as it is.
        seen = await store.status(key)
        pipeline = self._api.registry.require(seen.summary.pipeline, "step")
        if request.ByteSize() > LARGE_REQUEST:
            record = await asyncio.to_thread(step_record, step, pipeline)
        else:
            record = step_record(step, pipeline)
        report = Report(accepted=False, state=seen.states.get(step.name))
        if is_of(step, seen.summary):
            its = pipeline.by_name[step.name]
            needs = pipeline.marked_needs(its)
            report = await store.report(
                key, seen.run, reported.revision, pipeline.runs_class, needs, record
            )
        if report.accepted:
            self._api.reader.outdate(key)
        outcome = "reported" if report.accepted else UNCHANGED
        more: dict[str, Any] = {"revision": reported.revision, "step": step.name}
        extra = of_write(call, METHOD, outcome, key, of="step", **more)
        log.info("%s %s %s by a caller", key, step.name, outcome, extra=extra)
        return pb.ReportStepResponse(
            accepted=report.accepted, state=messages.step_state(report.state)
        )
