"""Turns the service's messages into the plain values of `_results`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, Final, TypedDict, TypeVar

from google.protobuf.duration_pb2 import Duration

from headstart._errors import ServiceError
from headstart._messages.artifacts import Artifact, artifact_from, object_from
from headstart._messages.descriptions import (
    ExecutorKind,
    Fate,
    Ledger,
    LedgerHidden,
    LedgerWork,
    PipelineDescription,
    Stats,
    StepDescription,
)
from headstart._messages.durations import elapsed_of, estimate_of
from headstart._messages.failure_reasons import FAILURE_REASONS, FailureReason
from headstart._messages.items import partial_items_from, progress_from
from headstart._messages.results import (
    BridgingResults,
    Cancelled,
    Embedding,
    Page,
    PendingReason,
    PrecomputeStatus,
    Results,
    RunSummary,
    Started,
    StartOutcome,
    Status,
    StepOrigin,
    StepProgress,
    StepReport,
    StepState,
    Touched,
    UnservedStep,
)
from headstart.v1 import precompute_pb2 as pb

T = TypeVar("T")

BRIDGING_PIPELINE: Final = "bridging"

_STATUSES: Final[Mapping[int, PrecomputeStatus]] = {
    pb.PRECOMPUTE_STATUS_PENDING: PrecomputeStatus.PENDING,
    pb.PRECOMPUTE_STATUS_IN_PROGRESS: PrecomputeStatus.IN_PROGRESS,
    pb.PRECOMPUTE_STATUS_COMPLETED: PrecomputeStatus.COMPLETED,
    pb.PRECOMPUTE_STATUS_FAILED: PrecomputeStatus.FAILED,
    pb.PRECOMPUTE_STATUS_CANCELLED: PrecomputeStatus.CANCELLED,
}

_OUTCOMES: Final[Mapping[int, StartOutcome]] = {
    pb.START_OUTCOME_STARTED: StartOutcome.STARTED,
    pb.START_OUTCOME_JOINED: StartOutcome.JOINED,
    pb.START_OUTCOME_REUSED: StartOutcome.REUSED,
    pb.START_OUTCOME_REPLACED: StartOutcome.REPLACED,
}

_STEP_STATES: Final[Mapping[int, StepState]] = {
    pb.STEP_STATE_PENDING: StepState.PENDING,
    pb.STEP_STATE_RUNNING: StepState.RUNNING,
    pb.STEP_STATE_COMPLETED: StepState.COMPLETED,
    pb.STEP_STATE_FAILED: StepState.FAILED,
    pb.STEP_STATE_SKIPPED: StepState.SKIPPED,
}

_STEP_ORIGINS: Final[Mapping[int, StepOrigin | None]] = {
    pb.STEP_ORIGIN_UNSPECIFIED: None,
    pb.STEP_ORIGIN_COMPUTED: StepOrigin.COMPUTED,
    pb.STEP_ORIGIN_KEPT: StepOrigin.KEPT,
    pb.STEP_ORIGIN_MEMOISED: StepOrigin.MEMOISED,
    pb.STEP_ORIGIN_REPORTED: StepOrigin.REPORTED,
}

PENDING_REASONS: Final[Mapping[int, PendingReason]] = {
    pb.PendingReason.Value(f"PENDING_REASON_{reason.name}"): reason for reason in PendingReason
}

_EXECUTORS: Final[Mapping[int, ExecutorKind]] = {
    pb.ExecutorKind.Value(f"EXECUTOR_KIND_{kind.name}"): kind for kind in ExecutorKind
}
_FATES: Final[Mapping[int, Fate]] = {pb.Fate.Value(f"FATE_{fate.name}"): fate for fate in Fate}


def status_from(number: int) -> PrecomputeStatus:
    """Convert a run's status."""
    return _known(_STATUSES, number, "run status")


def started_from(message: pb.StartPrecomputeResponse) -> Started:
    """Convert the answer to a start."""
    return Started(
        namespace=message.namespace,
        key=message.key,
        outcome=_known(_OUTCOMES, message.outcome, "start outcome"),
        status=status_from(message.status),
        revision=message.revision,
    )


def results_from(message: pb.GetResultsResponse) -> Results:
    """Convert a run's results."""
    # A run without results yet has no `results` on the wire: its pipeline determines the kind.
    is_bridging = message.HasField("bridging") or (
        message.pipeline == BRIDGING_PIPELINE and not message.HasField("custom")
    )
    steps = {
        name: StepReport(
            state=_known(_STEP_STATES, report.state, "step state"),
            error=report.error or None,
            elapsed=elapsed_of(report, "elapsed", report.elapsed),
            attempts=report.attempts,
            estimate=estimate_of(report),
            progress=_progress(report),
            origin=_known(_STEP_ORIGINS, report.origin, "step origin"),
            failure_reason=FAILURE_REASONS.get(report.failure_reason),
            items=progress_from(report),
            missing_needs=tuple(report.missing_needs),
        )
        for name, report in sorted(message.steps.items())
    }
    return Results(
        **_run_from(message),
        unserved_steps=_unserved(message),
        steps=steps,
        partials={
            each.step: [json.loads(line) for line in each.json_lines] or each.text
            for each in message.partial_results
            if each.json_lines or each.text
        },
        bridging=_bridging_from(message.bridging, steps) if is_bridging else None,
        custom=None
        if is_bridging
        else {
            name: _artifact_from(name, artifact)
            for name, artifact in sorted(message.custom.artifacts.items())
        },
        partial_items=partial_items_from(message),
    )


def run_status_from(message: pb.GetStatusResponse) -> Status:
    """Convert a run's status with its steps."""
    return Status(
        **_run_from(message),
        unserved_steps=_unserved(message),
        steps={
            name: _known(_STEP_STATES, state, "step state")
            for name, state in sorted(message.steps.items())
        },
    )


def cancelled_from(message: pb.CancelPrecomputeResponse) -> Cancelled:
    """Convert the answer to a cancel."""
    return Cancelled(
        namespace=message.namespace,
        key=message.key,
        cancelled=message.cancelled,
        status=status_from(message.status),
        revision=message.revision,
    )


def touched_from(message: pb.TouchPrecomputeResponse) -> Touched:
    """Convert the answer to a touch."""
    return Touched(
        namespace=message.namespace,
        key=message.key,
        status=status_from(message.status),
        revision=message.revision,
        expires_at=message.expires_at.ToDatetime(UTC),
    )


def page_from(message: pb.ListPrecomputesResponse) -> Page:
    """Convert one page of a listing."""
    return Page(
        runs=tuple(RunSummary(**_run_from(run)) for run in message.precomputes),
        next_page_token=message.next_page_token,
    )


def pipeline_from(message: pb.PipelineDescription) -> PipelineDescription:
    """Convert a pipeline's description."""
    return PipelineDescription(
        name=message.name,
        version=message.version,
        description=message.description,
        steps=tuple(_step_from(step) for step in message.steps),
        input_schema=object_from(message.input_schema),
    )


def _step_from(step: pb.StepDescription) -> StepDescription:
    return StepDescription(
        **{each.name: _plain(step, each.name) for each in fields(StepDescription)}
    )


def _plain(step: pb.StepDescription, name: str) -> Any:
    """Return a field of a step's description as its dataclass has it."""
    value = getattr(step, name)
    if name == "runs_on":
        return _EXECUTORS.get(value)
    if name == "output_schema":
        return object_from(value) if step.HasField("output_schema") else None
    match value:
        case Duration():
            return elapsed_of(step, name, value)
        case str() | bool() | int():
            return value
        case _:
            return tuple(value)


def stats_from(message: pb.GetStatsResponse) -> Stats:
    """Convert the counts."""
    return Stats(
        total_cached=message.total_cached,
        active_tasks=message.active_tasks,
        status_counts=dict(sorted(message.status_counts.items())),
        queued_jobs=message.queued_jobs,
        max_cached=message.max_cached,
        ledger=_ledger_from(message.ledger) if message.HasField("ledger") else None,
    )


def _ledger_from(message: pb.Ledger) -> Ledger:
    return Ledger(
        since=message.since.ToDatetime(UTC),
        starts=message.starts,
        joined=message.joined,
        reused=message.reused,
        unsettled=message.unsettled,
        hidden=message.hidden.ToTimedelta(),
        waited=message.waited.ToTimedelta(),
        llm_calls=message.llm_calls,
        llm_cached_tokens=message.llm_cached_tokens,
        fates={
            _FATES[work.fate]: LedgerWork(
                runs=work.runs,
                steps=work.steps,
                compute=work.compute.ToTimedelta(),
                cpu=work.cpu.ToTimedelta(),
                llm_tokens=work.llm_tokens,
            )
            for work in message.fates
            if work.fate in _FATES
        },
        pipelines={
            name: LedgerHidden(runs=sent.runs, hidden=sent.hidden.ToTimedelta())
            for name, sent in sorted(message.pipelines.items())
        },
    )


def _artifact_from(step: str, message: pb.Artifact) -> Artifact:
    try:
        return artifact_from(message)
    except ValueError as error:
        wrong = f"the service sent an artifact of step {step} that cannot be read: {error}"
        raise ServiceError(wrong) from None


def _unserved(message: pb.GetResultsResponse | pb.GetStatusResponse) -> tuple[UnservedStep, ...]:
    return tuple(
        UnservedStep(step=each.step, pool=each.pool, reason=PENDING_REASONS.get(each.reason))
        for each in message.unserved_steps
    )


class _Run(TypedDict):
    """The fields that every message about a run has, in the shape of our dataclasses."""

    namespace: str
    key: str
    pipeline: str
    revision: int
    status: PrecomputeStatus
    created_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime | None
    error: str | None
    failure_reason: FailureReason | None
    pending_reason: PendingReason | None


def _run_from(message: pb.GetResultsResponse | pb.GetStatusResponse | pb.PrecomputeSummary) -> _Run:
    return _Run(
        namespace=message.namespace,
        key=message.key,
        pipeline=message.pipeline,
        revision=message.revision,
        status=status_from(message.status),
        created_at=_time(message, "created_at"),
        started_at=_time(message, "started_at"),
        completed_at=_time(message, "completed_at"),
        expires_at=_time(message, "expires_at"),
        error=message.error or None,
        failure_reason=FAILURE_REASONS.get(message.failure_reason),
        pending_reason=PENDING_REASONS.get(message.pending_reason),
    )


def _bridging_from(message: pb.BridgingResults, steps: Mapping[str, StepReport]) -> BridgingResults:
    def completed(step: str) -> bool:
        return step in steps and steps[step].state is StepState.COMPLETED

    # On the wire an empty list and an absent one are the same: a completed step makes it a list.
    endpoints = completed("embed_endpoints")
    clues = completed("haiku_bridge")
    clue_embeddings = completed("haiku_embeddings")
    lexical = completed("lexical_bridge")
    samples = completed("null_samples")
    return BridgingResults(
        anchor_embedding=_part(tuple(message.anchor_embedding), completed=endpoints),
        target_embedding=_part(tuple(message.target_embedding), completed=endpoints),
        haiku_clues=_part(tuple(message.haiku_clues), completed=clues),
        haiku_embeddings=_part(_embeddings(message.haiku_embeddings), completed=clue_embeddings),
        lexical_bridge=_part(tuple(message.lexical_bridge), completed=lexical),
        lexical_embeddings=_part(_embeddings(message.lexical_embeddings), completed=lexical),
        null_samples=_part(tuple(message.null_samples), completed=samples),
        embedding_model=message.embedding_model or None,
    )


def _part(values: tuple[T, ...], *, completed: bool) -> tuple[T, ...] | None:
    return values if completed or values else None


def _embeddings(messages: Iterable[pb.Embedding]) -> tuple[Embedding, ...]:
    return tuple(tuple(message.values) for message in messages)


def _time(
    message: pb.GetResultsResponse | pb.GetStatusResponse | pb.PrecomputeSummary, field: str
) -> datetime | None:
    if not message.HasField(field):  # type: ignore[arg-type]  # the stubs want literals
        return None
    value: datetime = getattr(message, field).ToDatetime(tzinfo=UTC)
    return value


def _progress(report: pb.StepReport) -> StepProgress | None:
    if not report.HasField("progress"):
        return None
    given = report.progress
    fraction = given.fraction if given.HasField("fraction") else None
    return StepProgress(fraction=fraction, message=given.message)


def _known(table: Mapping[int, T], number: int, what: str) -> T:
    try:
        return table[number]
    except KeyError:
        message = f"the service sent {what} {number}, which this client is too old to know"
        raise ServiceError(message) from None
