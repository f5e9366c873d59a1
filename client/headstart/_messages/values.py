"""Converts a step's value: out of an answer, and into a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from headstart._messages.artifacts import artifact_to
from headstart._messages.convert import BRIDGING_PIPELINE
from headstart._messages.results import BridgingResults, Results, StepState
from headstart.v1 import precompute_pb2 as pb

ABSENT: Final = object()
"""What `value_of` gives where there is no value: None is one."""


def value_of(results: Results, step: str) -> Any:
    """Return what a step has given, or ABSENT."""
    report = results.steps.get(step)
    if report is None or report.state is not StepState.COMPLETED:
        return ABSENT
    if results.bridging is not None:
        read = _FROM_BRIDGING.get(step)
        return ABSENT if read is None else read(results.bridging)
    return (results.custom or {}).get(step, ABSENT)


def report_request(results: Results, step: str, value: Any, elapsed: float) -> pb.ReportStepRequest:
    """Return the report of a step's value; `elapsed` is in seconds.

    Raises TypeError, ValueError or KeyError where the value is not what the step gives.
    """
    request = pb.ReportStepRequest(
        namespace=results.namespace,
        key=results.key,
        revision=results.revision,
        step=step,
        elapsed=_duration(elapsed),
    )
    if results.created_at is not None:
        request.created_at.FromDatetime(results.created_at)
    if results.pipeline == BRIDGING_PIPELINE:
        request.bridging.CopyFrom(_TO_BRIDGING[step](value))
    else:
        request.artifact.CopyFrom(artifact_to(value))
    return request


def _endpoints(found: BridgingResults) -> dict[str, Any]:
    return {
        "anchor_embedding": found.anchor_embedding,
        "target_embedding": found.target_embedding,
        "embedding_model": found.embedding_model,
    }


def _lexical(found: BridgingResults) -> dict[str, Any]:
    return {
        "lexical_bridge": found.lexical_bridge,
        "lexical_embeddings": found.lexical_embeddings,
    }


_FROM_BRIDGING: Final[Mapping[str, Callable[[BridgingResults], Any]]] = {
    "embed_endpoints": _endpoints,
    "lexical_bridge": _lexical,
    "null_samples": lambda found: found.null_samples,
    "haiku_bridge": lambda found: found.haiku_clues,
    "haiku_embeddings": lambda found: found.haiku_embeddings,
}
_TO_BRIDGING: Final[Mapping[str, Callable[[Any], pb.BridgingResults]]] = {
    "embed_endpoints": lambda value: pb.BridgingResults(
        anchor_embedding=value["anchor_embedding"],
        target_embedding=value["target_embedding"],
        embedding_model=value["embedding_model"],
    ),
    "lexical_bridge": lambda value: pb.BridgingResults(
        lexical_bridge=value["lexical_bridge"],
        lexical_embeddings=_embeddings(value["lexical_embeddings"]),
    ),
    "null_samples": lambda value: pb.BridgingResults(null_samples=sorted(value)),
    "haiku_bridge": lambda value: pb.BridgingResults(haiku_clues=value),
    "haiku_embeddings": lambda value: pb.BridgingResults(haiku_embeddings=_embeddings(value)),
}


def _embeddings(rows: Any) -> list[pb.Embedding]:
    return [pb.Embedding(values=row) for row in rows]


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
