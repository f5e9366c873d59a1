"""A run's values, made small enough to look at: shapes for numbers, heads for texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import sqrt
from typing import Any, Final

from headstart._for_service import tensor_from
from headstart.v1 import precompute_pb2 as pb

from ..base.output import shortened
from ..domain import PartialForm, PartialPiece, StepState

_POINTS: Final = 64
_BINS: Final = 24
_VECTORS: Final = 12
_WORDS: Final = 50
_WORD: Final = 80
_TEXT: Final = 2000
TAIL: Final = 4000
"""Bytes of what a step has given so far that the page shows: the last ones."""
_LARGEST: Final = 256 * 1024
"""Bytes of an artifact beyond which the page shows its size alone: JSON of more takes too long."""
_ARTIFACTS: Final = 50
_BYTES: Final = 32

Value = dict[str, Any]


def values_of(results: pb.GetResultsResponse) -> list[Value]:
    """Each value with its kind, its step and what the page shows of it."""
    match results.WhichOneof("results"):
        case "bridging":
            return _bridging(results.bridging)
        case "custom":
            named = sorted(results.custom.artifacts.items())
            return [_artifact(name, artifact) for name, artifact in named[:_ARTIFACTS]]
        case _:
            return []


def growing_of(pieces: Sequence[PartialPiece], states: Mapping[str, StepState]) -> list[Value]:
    """What steps have given that have no value, or none yet: the end of it."""
    return [
        {
            "step": piece.step,
            "name": piece.step,
            "kind": "growing",
            "text": _end_of(piece),
            "clipped": piece.offset > 0,
            "failed": states.get(piece.step) is StepState.FAILED,
        }
        for piece in pieces[:_ARTIFACTS]
        if piece.data and states.get(piece.step) is not StepState.COMPLETED
    ]


def _end_of(piece: PartialPiece) -> str:
    """Return the text without the rest of a character, or of an item, that was cut at its start."""
    data = piece.data
    if piece.offset > 0 and piece.form is PartialForm.LINES:
        data = data[data.find(b"\n") + 1 :] or data
    text = data.decode(errors="replace")
    return text.lstrip("\N{REPLACEMENT CHARACTER}") if piece.offset > 0 else text


def _bridging(found: pb.BridgingResults) -> list[Value]:
    values: list[Value] = []
    for name, vector in (
        ("anchor_embedding", found.anchor_embedding),
        ("target_embedding", found.target_embedding),
    ):
        if vector:
            values.append({"step": "embed_endpoints"} | _vector(name, vector))
    for name, step, words, rows in (
        ("lexical_bridge", "lexical_bridge", found.lexical_bridge, found.lexical_embeddings),
        ("haiku_clues", "haiku_bridge", found.haiku_clues, ()),
        ("haiku_embeddings", "haiku_embeddings", (), found.haiku_embeddings),
    ):
        if words:
            values.append({"step": step, "name": name} | _words(words))
        labels = list(words) or list(found.haiku_clues)
        for place, row in enumerate(rows[:_VECTORS]):
            label = labels[place] if place < len(labels) else str(place + 1)
            values.append({"step": step} | _vector(f"{label[:_WORD]}", row.values))
    if found.null_samples:
        values.append({"step": "null_samples"} | _histogram("null_samples", found.null_samples))
    return values


def _words(words: Sequence[str]) -> Value:
    return {
        "kind": "words",
        "words": [word[:_WORD] for word in words[:_WORDS]],
        "count": len(words),
    }


def _vector(name: str, values: Sequence[float]) -> Value:
    """A sparkline: the mean of each of up to `_POINTS` stretches of equal length."""
    numbers = list(values)
    points = min(_POINTS, len(numbers))
    edges = [len(numbers) * i // points for i in range(points + 1)]
    means = [sum(numbers[low:high]) / (high - low) for low, high in pairwise(edges)]
    return {
        "kind": "vector",
        "name": name,
        "length": len(numbers),
        "norm": _rounded(sqrt(sum(x * x for x in numbers))),
        "points": [_rounded(mean) for mean in means],
    }


def _histogram(name: str, values: Sequence[float]) -> Value:
    """Counts in bins of equal width; `values` ascend."""
    numbers = sorted(values)
    low, high = numbers[0], numbers[-1]
    bins = [0] * _BINS
    width = (high - low) / _BINS
    for number in numbers:
        place = int((number - low) / width) if width else 0
        bins[min(place, _BINS - 1)] += 1
    return {
        "kind": "histogram",
        "name": name,
        "length": len(numbers),
        "low": _rounded(low),
        "high": _rounded(high),
        "median": _rounded(numbers[len(numbers) // 2]),
        "bins": bins,
    }


def _artifact(name: str, artifact: pb.Artifact) -> Value:
    base = {"step": name, "name": name}
    size = artifact.ByteSize()
    match artifact.WhichOneof("value"):
        case "tensor" if size <= _LARGEST and artifact.tensor.data:
            shape = " x ".join(str(n) for n in artifact.tensor.shape)
            numbers = [float(value.real) for value in tensor_from(artifact.tensor).values]
            return base | _vector(name, numbers) | {"shape": shape}
        case "json" if size <= _LARGEST:
            text = json.dumps(shortened(json.loads(artifact.json)), ensure_ascii=False, indent=1)
            return base | {"kind": "json", "text": text[:_TEXT], "clipped": len(text) > _TEXT}
        case "data":
            head = artifact.data[:_BYTES].hex(" ")
            return base | {"kind": "bytes", "length": len(artifact.data), "head": head}
        case _:
            return base | {"kind": "large", "length": size}


def _rounded(number: float) -> float | None:
    """Few digits; None for what JSON cannot say."""
    rounded = float(f"{number:.4g}")
    return rounded if abs(rounded) < float("inf") else None
