"""A run as the page receives it: status, times, and how each step fares. No values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from headstart.v1 import precompute_pb2 as pb

from ..domain import DEFAULT_POOL, Inspection, Lack, RunKey, RunSummary, Status
from ..pipeline.registry import Registry
from ..values.fragments import PROTO_REASON
from .item_view import items_view

_MAX_ERROR: Final = 500
_REASONS: Final = {number: reason.value for reason, number in PROTO_REASON.items()}
_SECOND_US: Final = 1_000_000
_LACKS: Final = {
    Lack.WORKER: "no worker is running",
    Lack.POOL: "no worker serves the pool {pool}",
    Lack.PIPELINE: "no worker has the pipeline",
    Lack.VERSION: "no worker has this version of the pipeline",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run as it was when it was looked at."""

    key: RunKey
    pipeline: str
    revision: int
    status: Status
    attempt: int
    worker: str
    created_us: int
    started_us: int
    completed_us: int
    expires_us: int
    error: str
    failure_reason: str
    """A `FailureReason`, empty without one."""
    pool: str
    """The pool that its pipeline names; empty if this process does not have the pipeline."""
    waits: str
    """Why no worker takes it; empty if one does or may."""
    steps: list[dict[str, Any]]

    @property
    def has_steps_without_workers(self) -> bool:
        """Whether a step waits for a worker: nothing announces when there is one."""
        return any(step["waits"] for step in self.steps)

    def same_end(self, other: RunView) -> bool:
        """Whether both have seen the same run's end."""
        return (self.status, self.created_us, self.completed_us) == (
            other.status,
            other.created_us,
            other.completed_us,
        )

    def as_json(self) -> dict[str, Any]:
        """All of it, with times in microseconds since the epoch, 0 where there is none."""
        return {
            "namespace": self.key.namespace,
            "key": self.key.key,
            "pipeline": self.pipeline,
            "revision": self.revision,
            "status": self.status.value,
            "attempt": self.attempt,
            "worker": self.worker,
            "created_us": self.created_us,
            "started_us": self.started_us,
            "completed_us": self.completed_us,
            "expires_us": self.expires_us,
            "error": self.error[:_MAX_ERROR],
            "failure_reason": self.failure_reason,
            "pool": self.pool,
            "waits": self.waits,
            "steps": self.steps,
        }


def results_of(look: Inspection) -> pb.GetResultsResponse:
    """What the record's fragments say; as much as can be read of it."""
    return pb.GetResultsResponse.FromString(look.snapshot.body)


def run_view(look: Inspection, registry: Registry) -> RunView:
    """A run without its values. A step whose fragment was not read has its state alone."""
    summary = look.snapshot.summary
    reports = results_of(look).steps
    pipeline = registry.find(summary.pipeline)
    unserved = {each.step: each for each in summary.unserved_steps}
    steps = []
    for name, state in look.snapshot.states.items():
        report = reports[name] if name in reports else pb.StepReport()  # no dict
        step = pipeline.by_name.get(name) if pipeline else None
        steps.append(
            {
                "name": name,
                "state": state.name.lower(),
                "needs": list(pipeline.needs(step)) if pipeline and step else [],
                "pool": pipeline.pool_of(step) if pipeline and step else "",
                "waits": _waits(unserved[name].lack, unserved[name].pool)
                if name in unserved
                else "",
                "items": items_view(report),
                "required": bool(step and step.required),
                "started_us": report.started_us,
                "elapsed": _seconds(report),
                "attempts": report.attempts,
                "max_attempts": step.max_attempts if step else 0,
                "kept": 0 < report.started_us < summary.created_us,
                "memoised": report.origin == pb.STEP_ORIGIN_MEMOISED,
                "progress": _progress(report),
                "error": report.error[:_MAX_ERROR],
                "failure_reason": _REASONS.get(report.failure_reason, ""),
            }
        )
    return RunView(
        key=summary.key,
        pipeline=summary.pipeline,
        revision=summary.revision,
        status=summary.status,
        attempt=look.attempt,
        worker=look.worker,
        created_us=summary.created_us,
        started_us=summary.started_us,
        completed_us=summary.completed_us,
        expires_us=summary.expires_us,
        error=summary.error,
        failure_reason=summary.failure_reason or "",
        pool=pipeline.pool if pipeline else "",
        waits=why_it_waits(summary, registry),
        steps=steps,
    )


def why_it_waits(run: RunSummary, registry: Registry) -> str:
    """Return why no worker takes a pending run; empty if one does or may."""
    pipeline = registry.find(run.pipeline)
    return _waits(run.lacks, pipeline.pool if pipeline else DEFAULT_POOL)


def _waits(lack: Lack | None, pool: str) -> str:
    return "" if lack is None else _LACKS[lack].format(pool=pool)


def _progress(report: pb.StepReport) -> dict[str, Any] | None:
    if not report.HasField("progress"):
        return None
    given = report.progress
    fraction = given.fraction if given.HasField("fraction") else None
    return {"fraction": fraction, "message": given.message}


def _seconds(report: pb.StepReport) -> float | None:
    if not report.HasField("elapsed"):
        return None
    return report.elapsed.ToMicroseconds() / _SECOND_US
