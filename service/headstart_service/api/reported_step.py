"""Checks a step's result that a caller reports, and writes it as the record keeps it.

A worker's result is right by construction; a caller's may be anything. The check here keeps every
reported result in the form that a worker would have written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headstart._for_service import BRIDGING_FIELDS, artifact_mistakes, not_one_of
from headstart.v1 import precompute_pb2 as pb

from ..domain import RunSummary, StepRecord, StepState
from ..domain.errors import InvalidRequest, Violation
from ..pipeline.pipeline import Pipeline
from ..values.artifacts import ArtifactCodec
from ..values.fragments import report_fragment
from ..values.json_values import json_text

MAX_RESULT_BYTES: Final = 1 << 20
"""More than any bridging step returns, and as much as the inputs of a run may have."""
_BRIDGING: Final = "bridging"


@dataclass(frozen=True, slots=True)
class ReportedStep:
    """A step's result as its caller reports it; `elapsed` is in seconds."""

    name: str
    kind: str
    """The field of the request that holds the result: bridging or artifact."""
    result: pb.BridgingResults | pb.Artifact
    elapsed: float
    created_us: int | None
    """When the run was started whose step this is, if the caller states that."""

    @classmethod
    def of(cls, request: pb.ReportStepRequest, elapsed: float) -> ReportedStep:
        """Return the step that a request reports in which `violations_of` finds nothing."""
        kind = request.WhichOneof("result") or ""
        created_us = None
        if request.HasField("created_at"):
            began = request.created_at
            created_us = began.seconds * 1_000_000 + began.nanos // 1000
        return cls(request.step, kind, getattr(request, kind), elapsed, created_us)


def violations_of(request: pb.ReportStepRequest) -> list[Violation]:
    """Return the rules that a report breaks whatever run it is about."""
    found = []
    if request.revision < 1:
        found.append(Violation("revision", f"must be 1 or more, is {request.revision}"))
    if not request.step:
        found.append(Violation("step", "must be set"))
    kind = request.WhichOneof("result")
    if kind is None:
        found.append(Violation("result", "must be set: bridging or artifact"))
    elif (size := getattr(request, kind).ByteSize()) > MAX_RESULT_BYTES:
        found.append(Violation(kind, f"must be at most {MAX_RESULT_BYTES} bytes, is {size}"))
    return found


def is_of(step: ReportedStep, run: RunSummary) -> bool:
    """Return whether the result belongs to this run, if its caller states when that was started."""
    return step.created_us is None or step.created_us == run.created_us


def step_record(step: ReportedStep, pipeline: Pipeline) -> StepRecord:
    """Return the reported step as a record keeps it.

    Raises InvalidRequest when the pipeline has no such step, or the result does not fit the step.
    """
    found = []
    if step.name not in pipeline.by_name:
        found.append(Violation("step", not_one_of(step.name, pipeline.by_name)))
    expected = _BRIDGING if pipeline.name == _BRIDGING else "artifact"
    results = pb.GetResultsResponse()
    if step.kind != expected:
        rule = f"must be {expected} for a run of {pipeline.name}, is {step.kind}"
        found.append(Violation("result", rule))
    elif isinstance(step.result, pb.Artifact):
        wrong = [Violation(field, rule) for field, rule in artifact_mistakes(step.result)]
        found += wrong or _misfits(step.name, step.result, pipeline)
        kept = results.custom.artifacts[step.name]
        kept.CopyFrom(step.result)
        if kept.HasField("json") and not found:
            kept.json = json_text(json.loads(kept.json))
    else:
        if step.name in BRIDGING_FIELDS:
            found += _bridging_violations(step.name, step.result)
        results.bridging.CopyFrom(step.result)
    if found:
        raise InvalidRequest(found)
    report = report_fragment(
        step.name,
        StepState.COMPLETED,
        elapsed=step.elapsed,
        origin=pb.STEP_ORIGIN_REPORTED,
    )
    return StepRecord(step.name, StepState.COMPLETED, results.SerializeToString() + report)


def _misfits(step: str, artifact: pb.Artifact, pipeline: Pipeline) -> list[Violation]:
    """Return the rule that the artifact breaks if steps that take it need another type."""
    codec = pipeline.codec
    rule = codec.misfit(step, artifact) if isinstance(codec, ArtifactCodec) else ""
    return [Violation("artifact", f"must be {rule}")] if rule else []


def _bridging_violations(step: str, results: pb.BridgingResults) -> list[Violation]:  # noqa: PLR0911  # a step each
    wanted = BRIDGING_FIELDS[step]
    given = {field.name for field, _ in results.ListFields()}
    found = [
        Violation(f"bridging.{name}", f"must be set for step {step}")
        for name in wanted
        if name not in given
    ]
    found += [
        Violation(f"bridging.{name}", f"must be empty for step {step}")
        for name in sorted(given.difference(wanted))
    ]
    if found:
        return found
    match step:
        case "embed_endpoints":
            both = {"anchor_embedding": results.anchor_embedding}
            both["target_embedding"] = results.target_embedding
            return _vector_violations(both)
        case "lexical_bridge":
            words, rows = len(results.lexical_bridge), len(results.lexical_embeddings)
            if words != rows:
                rule = f"must be one for each of {words} words, are {rows}"
                return [Violation("bridging.lexical_embeddings", rule)]
            return _rows_violations("lexical_embeddings", results.lexical_embeddings)
        case "haiku_embeddings":
            return _rows_violations("haiku_embeddings", results.haiku_embeddings)
        case "null_samples":
            samples = list(results.null_samples)
            if not _finite(samples) or samples != sorted(samples):
                return [Violation("bridging.null_samples", "must be finite and ascending")]
    return []


def _rows_violations(field: str, rows: Iterable[pb.Embedding]) -> list[Violation]:
    return _vector_violations({f"{field}[{i}].values": row.values for i, row in enumerate(rows)})


def _vector_violations(vectors: Mapping[str, Sequence[float]]) -> list[Violation]:
    """Return the rules that vectors break, by field: finite numbers, equally many in each."""
    length = len(next(iter(vectors.values())))
    found = []
    for name, values in vectors.items():
        if not values or len(values) != length or not _finite(values):
            rule = f"must be {length or 'some'} finite numbers, as the others are"
            found.append(Violation(f"bridging.{name}", rule))
    return found


def _finite(values: Iterable[float]) -> bool:
    return all(map(math.isfinite, values))
