"""The runs of `headstart.testing.fake_server`: what was scripted, and how far it is by now.

A run is no work, only a timetable: each step ends at a time that was set when it was started, and
every answer is what the timetable says at that moment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from headstart._artifacts import Artifact, Json, artifact_to
from headstart._results import BridgingResults, PrecomputeStatus, Results, StepState
from headstart.v1 import precompute_pb2 as pb

Scripted: TypeAlias = (
    Results | Mapping[str, Artifact] | Callable[[Mapping[str, Json]], Mapping[str, Artifact]]
)
"""What a run will give: results, values by step, or a function that makes those of the inputs."""

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
_UNENDED: Final = frozenset({StepState.PENDING, StepState.RUNNING})
FAILURE_TTL: Final = 60.0
"""Seconds that failed and cancelled runs are kept for, as by the service's default."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """What the runs of a key, or of a pipeline, shall give, and when."""

    results: Scripted | None
    """None: what each game needs, made up; nothing for other pipelines."""
    delays: Mapping[str, float]
    failed: Mapping[str, str]
    error: str | None
    queued: float

    def steps(
        self, results: Scripted | None, inputs: Mapping[str, Json]
    ) -> dict[str, ScriptedStep]:
        """The steps of a run of these inputs, which gives `results` where nothing is scripted.

        Raises ValueError when a delay is for a step that the run does not have.
        """
        given = self.results if self.results is not None else results
        steps: dict[str, ScriptedStep] = {}
        if isinstance(given, Results):
            for name, report in given.steps.items():
                value = None if given.custom is None else given.custom.get(name)
                steps[name] = ScriptedStep(
                    state=report.state,
                    after=math.inf if report.state in _UNENDED else self.delays.get(name, 0.0),
                    error=report.error or "",
                    artifact=None if given.custom is None else artifact_to(value),
                )
        else:
            values = given(inputs) if callable(given) else given or {}
            for name, value in values.items():
                after = self.delays.get(name, 0.0)
                steps[name] = ScriptedStep(
                    state=StepState.COMPLETED, after=after, artifact=artifact_to(value)
                )
        for name, reason in self.failed.items():
            after = self.delays.get(name, 0.0)
            steps[name] = ScriptedStep(state=StepState.FAILED, after=after, error=reason)
        if unknown := sorted(self.delays.keys() - steps.keys()):
            known = ", ".join(sorted(steps))
            raise ValueError(f"no such step: {', '.join(unknown)}; there are {known}")
        return steps


@dataclass(frozen=True, kw_only=True)
class ScriptedStep:
    """One step of a timetable."""

    state: StepState
    """How it ends; PENDING or RUNNING: never."""
    after: float
    """Seconds from when the run is taken until it ends."""
    error: str = ""
    artifact: pb.Artifact | None = None


@dataclass(kw_only=True)
class FakeRun:
    """A started run. Times named `at` are seconds of the monotonic clock."""

    namespace: str
    key: str
    pipeline: str
    spec: bytes
    """What was to be computed, serialized: equal specs are the same inputs."""
    revision: int
    steps: Mapping[str, ScriptedStep]
    bridging: BridgingResults | None
    error: str | None
    """Why it fails in the end; None if it does not."""
    queued: float
    ttl: float
    at: float
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    cancelled_at: float = math.inf
    kept_until: float = 0.0
    """A later start that reuses it may lengthen its life."""

    def taken_at(self) -> float:
        """When a worker takes it."""
        return self.at + self.queued

    def ends_at(self) -> float:
        """When it ends, be it by cancelling; maybe never."""
        last = max((step.after for step in self.steps.values()), default=0.0)
        return min(self.taken_at() + last, self.cancelled_at)

    def expires_at(self) -> float:
        """When it is forgotten."""
        failed = self.cancelled_at < math.inf or self.error is not None
        lives = FAILURE_TTL if failed else self.ttl
        return max(self.ends_at() + lives, self.kept_until)

    def next_change(self, now: float) -> float:
        """When it will look different from now; maybe never."""
        times = [self.taken_at(), *(self.taken_at() + s.after for s in self.steps.values())]
        return min((at for at in times if now < at < self.cancelled_at), default=math.inf)

    def status(self, now: float) -> PrecomputeStatus:
        """Where it stands."""
        if now >= self.cancelled_at:
            return PrecomputeStatus.CANCELLED
        if now >= self.ends_at():
            return PrecomputeStatus.COMPLETED if self.error is None else PrecomputeStatus.FAILED
        taken = now >= self.taken_at()
        return PrecomputeStatus.IN_PROGRESS if taken else PrecomputeStatus.PENDING

    def states(self, now: float) -> dict[str, StepState]:
        """Where each step stands."""
        now = min(now, self.cancelled_at)
        states = {}
        for name, step in self.steps.items():
            if now < self.taken_at():
                states[name] = StepState.PENDING
            elif now < self.taken_at() + step.after:
                pending = step.state is StepState.PENDING
                states[name] = StepState.PENDING if pending else StepState.RUNNING
            else:
                states[name] = step.state
        return states

    def settles(self, now: float, required: frozenset[str]) -> bool:
        """Whether nothing more is to be waited for: these steps have ended, or the run has."""
        if self.status(now).ended:
            return True
        states = self.states(now)
        wanted = required & states.keys() if required else states.keys()
        return all(states[name] not in _UNENDED for name in wanted)

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
            message.error = self.error or ""
        elif status is PrecomputeStatus.CANCELLED:
            message.error = "cancelled by the caller"

    def response(self, now: float) -> pb.GetResultsResponse:
        """What GetResults answers now."""
        message = pb.GetResultsResponse()
        self.fill(message, now)
        states = self.states(now)
        for name, state in states.items():
            report, step = message.steps[name], self.steps[name]
            report.state = _STATES[state]
            if state not in _UNENDED:
                report.error = step.error
            if state in {StepState.COMPLETED, StepState.FAILED}:
                report.elapsed.FromTimedelta(timedelta(seconds=step.after))
                report.attempts = 1
            if state not in {StepState.PENDING, StepState.SKIPPED}:
                report.started_us = round(self._time(self.taken_at()).timestamp() * 1e6)
            if state is StepState.COMPLETED and step.artifact is not None:
                message.custom.artifacts[name].CopyFrom(step.artifact)
        completed = {name for name, state in states.items() if state is StepState.COMPLETED}
        if self.bridging is not None and completed:
            message.bridging.CopyFrom(_bridging(self.bridging, completed))
        return message

    def status_response(self, now: float) -> pb.GetStatusResponse:
        """What GetStatus answers now."""
        message = pb.GetStatusResponse()
        self.fill(message, now)
        for name, state in self.states(now).items():
            message.steps[name] = _STATES[state]
        return message

    def _time(self, at: float) -> datetime:
        return self.created + timedelta(seconds=at - self.at)


def status_number(status: PrecomputeStatus) -> pb.PrecomputeStatus.ValueType:
    """A status as its message's number."""
    return _STATUSES[status]


def _bridging(results: BridgingResults, completed: set[str]) -> pb.BridgingResults:
    """The parts that these steps have given."""
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


def script_of(
    results: Scripted | None,
    delays: Mapping[str, float] | None,
    failed: Mapping[str, str] | None,
    error: str | None,
    queued: float,
) -> Script:
    """A script. Raises ValueError or TypeError if it is known now that it cannot be followed."""
    script = Script(
        results=results, delays=delays or {}, failed=failed or {}, error=error, queued=queued
    )
    if results is not None and not callable(results):
        script.steps(results, {})
    return script
