"""Requests that many tests send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headstart.v1 import precompute_pb2 as pb


def human_game(
    key: str, anchor: str = "ocean", target: str = "forest"
) -> pb.StartPrecomputeRequest:
    """A game that needs no language model."""
    return game(key, anchor, target, pb.RECIPIENT_TYPE_HUMAN)


def haiku_game(
    key: str, anchor: str = "ocean", target: str = "forest"
) -> pb.StartPrecomputeRequest:
    """A game that Claude Haiku plays too."""
    return game(key, anchor, target, pb.RECIPIENT_TYPE_HAIKU)


def game(
    key: str, anchor: str, target: str, recipient: pb.RecipientType.ValueType
) -> pb.StartPrecomputeRequest:
    spec = pb.BridgingSpec(anchor=anchor, target=target, recipient_type=recipient)
    return pb.StartPrecomputeRequest(key=key, bridging=spec)


def probe(key: str, directory: Path, value: int = 0) -> pb.StartPrecomputeRequest:
    """A run of the pipeline `probe`."""
    spec = pb.CustomSpec(pipeline="probe")
    spec.inputs.update({"directory": str(directory), "value": value})
    return pb.StartPrecomputeRequest(key=key, custom=spec)


def noop(key: str, value: int = 0) -> pb.StartPrecomputeRequest:
    """A run of the pipeline `noop`."""
    spec = pb.CustomSpec(pipeline="noop")
    spec.inputs.update({"value": value})
    return pb.StartPrecomputeRequest(key=key, custom=spec)


def chain(key: str, value: int) -> pb.StartPrecomputeRequest:
    """A run of the pipeline `chain`, whose last step gives (value + 1) * 2 + 3."""
    spec = pb.CustomSpec(pipeline="chain")
    spec.inputs.update({"value": value})
    return pb.StartPrecomputeRequest(key=key, custom=spec)


def results(key: str, wait: float = 0, *steps: str) -> pb.GetResultsRequest:
    request = pb.GetResultsRequest(key=key, required_steps=steps)
    request.wait.FromNanoseconds(round(wait * 1e9))
    return request


def json_of(answer: pb.GetResultsResponse, step: str) -> Any:
    """What a step of a custom pipeline gave as JSON."""
    return json.loads(answer.custom.artifacts[step].json)
