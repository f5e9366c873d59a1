"""Checks a step's result that a caller hands in, and writes it as the record keeps it.

What a worker writes is right by construction; this may be anything. Its form is checked here, so
that no caller of the run, and no step that takes it, meets what a worker would not have given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from google.protobuf import json_format

from headstart._for_service import has_wrong_integers, not_one_of
from headstart.v1 import precompute_pb2 as pb

from ..domain import RunSummary, StepRecord, StepState
from ..domain.errors import InvalidRequest, Violation
from ..pipeline.pipeline import Pipeline
from ..values.artifacts import ArtifactCodec
from ..values.fragments import report_fragment

MAX_RESULT_BYTES: Final = 1 << 20
"""More than any bridging step gives, and what the inputs of a run may have."""
_INTEGERS: Final = "must be the digits of the integers that `json` has at these places"
_BRIDGING: Final = "bridging"
_FIELDS: Final[Mapping[str, Sequence[str]]] = {
    "embed_endpoints": ("anchor_embedding", "target_embedding", "embedding_model"),
    "lexical_bridge": ("lexical_bridge", "lexical_embeddings"),
    "null_samples": ("null_samples",),
    "haiku_bridge": ("haiku_clues",),
    "haiku_embeddings": ("haiku_embeddings",),
}
"""What each step gives, as the comments of BridgingResults say."""


def violations(request: pb.ReportStepRequest) -> list[Violation]:
    """The rules that a report breaks whatever run it is about."""
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


def is_of(request: pb.ReportStepRequest, run: RunSummary) -> bool:
    """Whether the result belongs to this run, if its caller says when that was started."""
    began = request.created_at
    return (
        not request.HasField("created_at")
        or began.seconds * 1_000_000 + began.nanos // 1000 == run.created_us
    )


def record(request: pb.ReportStepRequest, pipeline: Pipeline, elapsed: float) -> StepRecord:
    """The reported step as a record keeps it; `elapsed` is in seconds.

    Raises InvalidRequest when it is none of the pipeline's, or its result is not as that step's.
    """
    found = []
    if request.step not in pipeline.by_name:
        found.append(Violation("step", not_one_of(request.step, pipeline.by_name)))
    expected = _BRIDGING if pipeline.name == _BRIDGING else "artifact"
    kind = request.WhichOneof("result")
    if kind != expected:
        rule = f"must be {expected} for a run of {pipeline.name}, is {kind}"
        found.append(Violation("result", rule))
    elif kind == "artifact":
        found += _artifact_violations(request.artifact) or _misfits(request, pipeline)
    elif request.step in _FIELDS:
        found += _bridging_violations(request.step, request.bridging)
    if found:
        raise InvalidRequest(found)
    results = pb.GetResultsResponse()
    if kind == _BRIDGING:
        results.bridging.CopyFrom(request.bridging)
    else:
        results.custom.artifacts[request.step].CopyFrom(request.artifact)
    report = report_fragment(
        request.step,
        StepState.COMPLETED,
        elapsed=elapsed,
        origin=pb.STEP_ORIGIN_REPORTED,
    )
    return StepRecord(request.step, StepState.COMPLETED, results.SerializeToString() + report)


def _artifact_violations(artifact: pb.Artifact) -> list[Violation]:
    match artifact.WhichOneof("value"):
        case None:
            return [Violation("artifact", "must be set: json, tensor or data")]
        case "json":
            try:
                json_format.MessageToDict(artifact.json)
            except (ValueError, json_format.Error):
                return [Violation("artifact.json", "must be JSON: no NaN, no infinity")]
            if artifact.large_integers and has_wrong_integers(artifact):
                return [Violation("artifact.large_integers", _INTEGERS)]
        case "tensor":
            shape, values = artifact.tensor.shape, artifact.tensor.values
            if any(length < 0 for length in shape) or math.prod(shape) != len(values):
                rule = f"must hold as many as shape says, {list(shape)[:8]}, are {len(values)}"
                return [Violation("artifact.tensor.values", rule)]
    return []


def _misfits(request: pb.ReportStepRequest, pipeline: Pipeline) -> list[Violation]:
    """Whether steps that take it would get what this one's annotation promises."""
    codec = pipeline.codec
    rule = codec.misfit(request.step, request.artifact) if isinstance(codec, ArtifactCodec) else ""
    return [Violation("artifact", f"must be {rule}")] if rule else []


def _bridging_violations(step: str, results: pb.BridgingResults) -> list[Violation]:  # noqa: PLR0911  # a step each
    wanted = _FIELDS[step]
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
    """Vectors by field: finite numbers, as many in each as in the first."""
    length = len(next(iter(vectors.values())))
    found = []
    for name, values in vectors.items():
        if not values or len(values) != length or not _finite(values):
            rule = f"must be {length or 'some'} finite numbers, as the others are"
            found.append(Violation(f"bridging.{name}", rule))
    return found


def _finite(values: Iterable[float]) -> bool:
    return all(map(math.isfinite, values))
