"""The runs of `headstart.testing.fake_server`: how far each is by now.

A run is no work, only a timetable: each step ends at a time that was set when it was started.
Every answer is that of the timetable at that moment. Only a report or a cancel changes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from headstart._fake.reported_steps import fill
from headstart._fake.script import SOFT, UNENDED, ScriptedStep
from headstart._fake.streams import partial_of
from headstart._messages.durations import StepEstimate
from headstart._messages.failure_reasons import FailureReason
from headstart._messages.results import (
    BridgingResults,
    PrecomputeStatus,
    StepOrigin,
    StepState,
)
from headstart.v1 import precompute_pb2 as pb

_STATUSES: Final = {
    PrecomputeStatus.PENDING: pb.PRECOMPUTE_STATUS_PENDING,
    PrecomputeStatus.IN_PROGRESS: pb.PRECOMPUTE_STATUS_IN_PROGRESS,
    PrecomputeStatus.COMPLETED: pb.PRECOMPUTE_STATUS_COMPLETED,
    PrecomputeStatus.FAILED: pb.PRECOMPUTE_STATUS_FAILED,
    PrecomputeStatus.CANCELLED: pb.PRECOMPUTE_STATUS_CANCELLED,
}
_STATES: Final = {
    StepState.PENDING: pb.STEP_STATE_PENDING,
    StepState.RUNNING: pb.STEP_STATE_RUNNING,
    StepState.COMPLETED: pb.STEP_STATE_COMPLETED,
    StepState.FAILED: pb.STEP_STATE_FAILED,
    StepState.SKIPPED: pb.STEP_STATE_SKIPPED,
}
_ORIGINS: Final = {
    StepOrigin.COMPUTED: pb.STEP_ORIGIN_COMPUTED,
    StepOrigin.KEPT: pb.STEP_ORIGIN_KEPT,
    StepOrigin.MEMOISED: pb.STEP_ORIGIN_MEMOISED,
    StepOrigin.REPORTED: pb.STEP_ORIGIN_REPORTED,
}
_REASONS: Final = {
    reason: pb.FailureReason.Value(f"FAILURE_REASON_{reason.name}") for reason in FailureReason
}
_OVERDUE: Final = 0.1
"""Of what a step was expected to take: how much longer one is given that has had all of that."""
FAILURE_TTL: Final = 60.0
"""Seconds that failed and cancelled runs are kept for, as by the service's default."""


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A step's result that a caller has handed in."""

    request: pb.ReportStepRequest
    at: float


@dataclass(kw_only=True)
class FakeRun:
    """A started run. Times named `at` are seconds of the monotonic clock."""

    namespace: str
    key: str
    pipeline: str
    spec: Any
    """What is computed: equal specs are the same inputs."""
    revision: int
    outcome: pb.StartOutcome.ValueType = pb.START_OUTCOME_STARTED
    """What the start that made it answered."""
    request_id: str = ""
    """Of that start."""
    steps: Mapping[str, ScriptedStep]
    needs: Mapping[str, tuple[str, ...]]
    """By step, those without which it has no result."""
    bridging: BridgingResults | None
    error: tuple[str, FailureReason | None] | None
    """Why it fails in the end; None if it does not."""
    queued: float
    ttl: float
    at: float
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    cancelled_at: float = math.inf
    kept_until: float = 0.0
    """A later start that reuses it may lengthen its life."""
    reports: dict[str, Reported] = field(default_factory=dict)

    def taken_at(self) -> float:
        """Return when a worker takes it."""
        return self.at + self.queued

    def ends_at(self) -> float:
        """Return when it ends, be it by cancelling; maybe never."""
        last = max((self._step_ends_at(name) for name in self.steps), default=0.0)
        return min(max(self.taken_at(), last), self.cancelled_at)

    def _step_ends_at(self, name: str) -> float:
        report = self.reports.get(name)
        return self.taken_at() + self.steps[name].after if report is None else report.at

    def _fails(self) -> bool:
        """Return whether it fails: not if every step that would have failed was reported."""
        failing = {n for n, step in self.steps.items() if step.state is StepState.FAILED}
        mended = bool(failing) and failing <= self.reports.keys()
        return self.error is not None and not mended

    def _first_failure(self) -> FailureReason:
        """Return the reason of the first step that fails."""
        reasons = (step.failure_reason for n, step in self.steps.items() if n not in self.reports)
        return next(filter(None, reasons), FailureReason.STEP_FAILED)

    def expires_at(self) -> float:
        """Return when it is forgotten."""
        failed = self.cancelled_at < math.inf or self._fails()
        lives = FAILURE_TTL if failed else self.ttl
        return max(self.ends_at() + lives, self.kept_until)

    def next_change(self, now: float) -> float:
        """Return when it next changes, in seconds; infinity for never."""
        taken, steps = self.taken_at(), self.steps.values()
        times = [taken, *map(self._step_ends_at, self.steps)]
        times += [taken + step.items.next_end(now - taken) for step in steps if step.items]
        for step in steps:
            times += [taken + at for at in (step.stream.times(step.after) if step.stream else ())]
        return min((at for at in times if now < at < self.cancelled_at), default=math.inf)

    def status(self, now: float) -> PrecomputeStatus:
        """Return its status."""
        if now >= self.cancelled_at:
            return PrecomputeStatus.CANCELLED
        if now >= self.ends_at():
            return PrecomputeStatus.FAILED if self._fails() else PrecomputeStatus.COMPLETED
        taken = now >= self.taken_at()
        return PrecomputeStatus.IN_PROGRESS if taken else PrecomputeStatus.PENDING

    def states(self, now: float) -> dict[str, StepState]:
        """Return each step's state."""
        states = self._reached(now)
        if now >= self.cancelled_at:
            states |= {n: StepState.PENDING for n, s in states.items() if s is StepState.RUNNING}
        return states

    def _reached(self, now: float) -> dict[str, StepState]:
        """Return each step's state, or that right before the run was cancelled."""
        now = min(now, self.cancelled_at)
        states: dict[str, StepState] = {}
        for name, step in self.steps.items():
            if now >= self._step_ends_at(name):
                states[name] = StepState.COMPLETED if name in self.reports else step.state
            elif now < self.taken_at() or step.state is StepState.PENDING:
                states[name] = StepState.PENDING
            else:
                states[name] = StepState.RUNNING
        running = [name for name, state in states.items() if state is StepState.RUNNING]
        for name in running:
            if not self._has_needs(name, states):
                states[name] = StepState.PENDING
        return states

    def _has_needs(self, name: str, states: Mapping[str, StepState]) -> bool:
        needs = [need for need in self.needs.get(name, ()) if need.rstrip(SOFT) in states]
        return all(
            states[need.rstrip(SOFT)] not in UNENDED
            if need.endswith(SOFT)
            else states[need] is StepState.COMPLETED
            for need in needs
        )

    def report(self, request: pb.ReportStepRequest, now: float) -> bool:
        """Keep a step's result, unless it is no longer wanted, or made of what is not kept."""
        states = self.states(now)
        wanted = states.get(request.step) in UNENDED and self._has_needs(request.step, states)
        if not wanted or not self._is_meant(request) or self.status(now).ended:
            return False
        self.reports[request.step] = Reported(request=request, at=now)
        return True

    def _is_meant(self, request: pb.ReportStepRequest) -> bool:
        created = Timestamp()
        created.FromDatetime(self.created)
        return request.revision == self.revision and (
            not request.HasField("created_at") or request.created_at == created
        )

    def step_number(self, name: str, now: float) -> pb.StepState.ValueType:
        """Return a step's state as its message's number; unspecified for an unknown step."""
        state = self.states(now).get(name)
        return pb.STEP_STATE_UNSPECIFIED if state is None else _STATES[state]

    def settles(self, now: float, required: frozenset[str]) -> bool:
        """Return whether waiting has ended: these steps have ended, or the run has."""
        if self.status(now).ended:
            return True
        states = self.states(now)
        wanted = required & states.keys() if required else states.keys()
        return all(states[name] not in UNENDED for name in wanted)

    def fill(self, message: Any, now: float) -> None:
        """Write what every message about a run has."""
        message.namespace, message.key = self.namespace, self.key
        message.pipeline, message.revision = self.pipeline, self.revision
        status = self.status(now)
        message.status = _STATUSES[status]
        message.created_at.FromDatetime(self.created)
        message.expires_at.FromDatetime(self._time(min(self.expires_at(), self.at + 1e9)))
        if now >= self.taken_at():
            message.started_at.FromDatetime(self._time(self.taken_at()))
        if status.ended:
            message.completed_at.FromDatetime(self._time(self.ends_at()))
        if status is PrecomputeStatus.FAILED:
            message.error, reason = self.error or ("", None)
            message.failure_reason = _REASONS[reason or self._first_failure()]
        elif status is PrecomputeStatus.CANCELLED:
            message.error = "cancelled by the caller"
            message.failure_reason = pb.FAILURE_REASON_CANCELLED

    def response(self, now: float) -> pb.GetResultsResponse:
        """Return what GetResults answers now."""
        message = pb.GetResultsResponse()
        self.fill(message, now)
        states = self.states(now)
        for name, state in states.items():
            if name in self.reports and state is StepState.COMPLETED:
                self._fill_reported(message, name)
            else:
                self._fill_step(message, name, state, now)
                self._fill_needs(message.steps[name], name, states)
        scripted = {
            name
            for name, state in states.items()
            if state is StepState.COMPLETED and name not in self.reports
        }
        if self.bridging is not None and scripted:
            message.bridging.MergeFrom(_bridging(self.bridging, scripted))
        return message

    def _fill_needs(
        self, report: pb.StepReport, name: str, states: Mapping[str, StepState]
    ) -> None:
        if states[name] in {StepState.COMPLETED, StepState.FAILED}:
            soft = (n.rstrip(SOFT) for n in self.needs.get(name, ()) if n.endswith(SOFT))
            missing = (n for n in soft if states.get(n) is not StepState.COMPLETED)
            report.missing_needs.extend(missing)

    def partials(
        self, now: float, cursors: Mapping[str, pb.PartialCursor], steps: Sequence[str]
    ) -> list[pb.PartialResult]:
        """Return what steps have given beyond the cursors; without `steps`, of all."""
        generation = round(self.created.timestamp() * 1e6)
        found = []
        for name, state in self._reached(now).items():
            step = self.steps[name]
            wanted = not steps or name in steps
            if step.stream is None or state is StepState.PENDING or name in self.reports:
                continue
            data = step.stream.given(step.after, self._had(now))
            made = partial_of(name, data, generation, cursors.get(name), lines=step.stream.lines)
            if wanted and made is not None:
                found.append(made)
        return found

    def _fill_reported(self, message: pb.GetResultsResponse, name: str) -> None:
        request = self.reports[name].request
        step = message.steps[name]
        step.state, step.origin = pb.STEP_STATE_COMPLETED, pb.STEP_ORIGIN_REPORTED
        step.elapsed.CopyFrom(request.elapsed)
        fill(message, request)

    def _fill_step(
        self, message: pb.GetResultsResponse, name: str, state: StepState, now: float
    ) -> None:
        report, step = message.steps[name], self.steps[name]
        report.state = _STATES[state]
        by_caller = step.origin is StepOrigin.REPORTED
        if state in {StepState.COMPLETED, StepState.FAILED}:
            report.elapsed.FromTimedelta(timedelta(seconds=step.after))
            report.attempts = 0 if by_caller else 1
        if state not in UNENDED:
            report.error = step.error
            if step.failure_reason is not None:
                report.failure_reason = _REASONS[step.failure_reason]
            if state is StepState.COMPLETED:
                report.origin = _ORIGINS[step.origin]
        elif step.estimate is not None and not self.status(now).ended:
            self._fill_estimate(report.estimate, step.estimate, now)
        if state not in {StepState.PENDING, StepState.SKIPPED} and not by_caller:
            report.started_us = round(self._time(self.taken_at()).timestamp() * 1e6)
        reached = self._reached(now)[name] if step.items is not None else state
        if step.items is not None and reached in {StepState.RUNNING, StepState.COMPLETED}:
            step.items.fill(message, name, self._had(now), state)
        if state is StepState.COMPLETED and step.artifact is not None:
            message.custom.artifacts[name].CopyFrom(step.artifact)

    def _fill_estimate(self, message: pb.StepEstimate, scripted: StepEstimate, now: float) -> None:
        """Fill in what is left of it, or a little where that time is over."""
        had = timedelta(seconds=now - self.taken_at())
        message.p50.FromTimedelta(max(scripted.p50 - had, scripted.p50 * _OVERDUE))
        message.p90.FromTimedelta(max(scripted.p90 - had, scripted.p90 * _OVERDUE))

    def status_response(self, now: float) -> pb.GetStatusResponse:
        """Return what GetStatus answers now."""
        message = pb.GetStatusResponse()
        self.fill(message, now)
        for name, state in self.states(now).items():
            message.steps[name] = _STATES[state]
        return message

    def _had(self, now: float) -> float:
        """Return for how many seconds its worker has had it."""
        return min(now, self.cancelled_at) - self.taken_at()

    def _time(self, at: float) -> datetime:
        return self.created + timedelta(seconds=at - self.at)


def status_number(status: PrecomputeStatus) -> pb.PrecomputeStatus.ValueType:
    """Return a status as its message's number."""
    return _STATUSES[status]


def _bridging(results: BridgingResults, completed: set[str]) -> pb.BridgingResults:
    """Return the parts that these steps have given."""
    message = pb.BridgingResults()
    if "embed_endpoints" in completed:
        message.anchor_embedding.extend(results.anchor_embedding or ())
        message.target_embedding.extend(results.target_embedding or ())
        message.embedding_model = results.embedding_model or ""
    if "haiku_bridge" in completed:
        message.haiku_clues.extend(results.haiku_clues or ())
    if "haiku_embeddings" in completed:
        for vector in results.haiku_embeddings or ():
            message.haiku_embeddings.add(values=vector)
    if "lexical_bridge" in completed:
        message.lexical_bridge.extend(results.lexical_bridge or ())
        for vector in results.lexical_embeddings or ():
            message.lexical_embeddings.add(values=vector)
    if "null_samples" in completed:
        message.null_samples.extend(results.null_samples or ())
    return message
