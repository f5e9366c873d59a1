"""ReportStep as `headstart.testing.fake_server` takes it: the rules of a result's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from headstart._errors.suggestions import not_one_of
from headstart._fake.checks import Checks, all_finite
from headstart._messages.artifacts import artifact_from, artifact_mistakes, artifact_to
from headstart._messages.convert import BRIDGING_PIPELINE, results_from
from headstart._messages.result_parts import BRIDGING_FIELDS
from headstart._messages.values import value_of
from headstart.v1 import precompute_pb2 as pb

_MAX_RESULT_BYTES: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ReportedStep:
    """A step's result that a caller has handed in, and what the server made of it."""

    namespace: str
    key: str
    revision: int
    step: str
    value: Any
    """As in `Computed.values`: what the caller's fallback returned, but for what JSON cannot hold
    (a tuple is a list) and arrays, which are `Tensor`."""
    elapsed: timedelta
    """How long it took, by the caller's report."""
    accepted: bool
    """Whether the run had no result of that step yet, and was the one that was meant."""


def check_form(request: pb.ReportStepRequest, checks: Checks) -> None:
    """Return the rules that a report breaks whatever run it is about."""
    if request.revision < 1:
        checks.add("revision", f"must be 1 or more, is {request.revision}")
    if not request.step:
        checks.add("step", "must be set")
    kind = request.WhichOneof("result")
    if kind is None:
        checks.add("result", "must be set: bridging or artifact")
    elif (size := getattr(request, kind).ByteSize()) > _MAX_RESULT_BYTES:
        checks.add(kind, f"must be at most {_MAX_RESULT_BYTES} bytes, is {size}")


def check_result(request: pb.ReportStepRequest, pipeline: str, steps: set[str]) -> None:
    """Raise InvalidRequest if it is no step of the pipeline, or no result of that step."""
    checks = Checks()
    if request.step not in steps:
        checks.add("step", not_one_of(request.step, steps))
    expected = BRIDGING_PIPELINE if pipeline == BRIDGING_PIPELINE else "artifact"
    kind = request.WhichOneof("result")
    if kind != expected:
        checks.add("result", f"must be {expected} for a run of {pipeline}, is {kind}")
    elif kind == "artifact":
        for field, rule in artifact_mistakes(request.artifact):
            checks.add(field, rule)
    elif request.step in BRIDGING_FIELDS:
        _check_bridging(request.step, request.bridging, checks)
    checks.refuse()


def reported_step(request: pb.ReportStepRequest, pipeline: str, *, accepted: bool) -> ReportedStep:
    """Return a checked report as its author's test reads it."""
    whole = pb.GetResultsResponse(
        namespace=request.namespace or "default",
        key=request.key,
        pipeline=pipeline,
        revision=request.revision,
        status=pb.PRECOMPUTE_STATUS_IN_PROGRESS,
    )
    whole.steps[request.step].state = pb.STEP_STATE_COMPLETED
    fill(whole, request)
    return ReportedStep(
        namespace=whole.namespace,
        key=whole.key,
        revision=whole.revision,
        step=request.step,
        value=value_of(results_from(whole), request.step),
        elapsed=request.elapsed.ToTimedelta(),
        accepted=accepted,
    )


def fill(message: pb.GetResultsResponse, request: pb.ReportStepRequest) -> None:
    """Write what was reported into an answer."""
    if request.HasField("bridging"):
        message.bridging.MergeFrom(request.bridging)
    else:
        message.custom.artifacts[request.step].CopyFrom(
            artifact_to(artifact_from(request.artifact))
        )


def _check_bridging(step: str, results: pb.BridgingResults, checks: Checks) -> None:  # noqa: C901  # a step each
    wanted = BRIDGING_FIELDS[step]
    given = {field.name for field, _ in results.ListFields()}
    for name in wanted:
        if name not in given:
            checks.add(f"bridging.{name}", f"must be set for step {step}")
    for name in sorted(given.difference(wanted)):
        checks.add(f"bridging.{name}", f"must be empty for step {step}")
    if checks.violations:
        return
    match step:
        case "embed_endpoints":
            both = {name: getattr(results, name) for name in wanted[:2]}
            _check_vectors(both, checks)
        case "lexical_bridge":
            words, rows = len(results.lexical_bridge), len(results.lexical_embeddings)
            if words != rows:
                rule = f"must be one for each of {words} words, are {rows}"
                checks.add("bridging.lexical_embeddings", rule)
            else:
                _check_rows("lexical_embeddings", results.lexical_embeddings, checks)
        case "haiku_embeddings":
            _check_rows("haiku_embeddings", results.haiku_embeddings, checks)
        case "null_samples":
            samples = list(results.null_samples)
            if not all_finite(samples) or samples != sorted(samples):
                checks.add("bridging.null_samples", "must be finite and ascending")


def _check_rows(field: str, rows: Sequence[pb.Embedding], checks: Checks) -> None:
    _check_vectors({f"{field}[{i}].values": row.values for i, row in enumerate(rows)}, checks)


def _check_vectors(vectors: Mapping[str, Sequence[float]], checks: Checks) -> None:
    """Return vectors by field: finite numbers, as many in each as in the first."""
    length = len(next(iter(vectors.values())))
    for name, values in vectors.items():
        if not values or len(values) != length or not all_finite(values):
            rule = f"must be {length or 'some'} finite numbers, as the others are"
            checks.add(f"bridging.{name}", rule)
