"""Reads the annotations of steps: what each returns, and which parameters cannot fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..values.annotations import (
    MISSING,
    ArrayType,
    Unresolved,
    resolved,
    spelled,
    written,
)
from ..values.assignability import fits
from ..values.codec import ResultCodec
from ..values.kinds import Kind, kind_of
from .mistakes import Mistake, line_of
from .step import Step
from .streams import result_type


def kinds(steps: Collection[Step]) -> tuple[dict[str, Kind], list[Mistake]]:
    """Return each step's kind of value, and a mistake for each step without one."""
    found: dict[str, Kind] = {}
    mistakes = []
    for step in steps:
        try:
            found[step.name] = kind_of(result_type(step))
        except (Unresolved, ValueError) as error:
            where = line_of(step.function, "return")
            mistakes.append(Mistake(where, f"step {step.name}, return type: {error}"))
    return found, mistakes


def output_type(codec: ResultCodec, step: Step) -> str:
    """Return the type of the step's value, as Python writes it; empty without an annotation."""
    kind = getattr(codec, "kinds", {}).get(step.name)
    return kind.text if kind is not None else written(step.function, "return")


def output_schema(codec: ResultCodec, step: Step) -> Mapping[str, Any] | None:
    """Return the JSON Schema of the step's value; None where it is no JSON, or not declared."""
    kind: Kind | None = getattr(codec, "kinds", {}).get(step.name)
    return None if kind is None else kind.schema


def misfits(steps: Mapping[str, Step], inputs: Mapping[str, Any]) -> Iterator[Mistake]:
    """Find parameters whose annotation cannot hold for the input or step that they name."""
    for step in steps.values():
        for name in step.parameters:
            wanted = _type(step, name)
            if name in steps:
                given, whose = _type(steps[name], "return"), f"step {name} returns"
            elif name in inputs:
                given, whose = inputs[name], f"input {name} is"
            else:
                continue
            if not fits(given, wanted):
                yield Mistake(
                    line_of(step.function, name),
                    f"step {step.name}: parameter {name} is {spelled(wanted)}, but {whose} "
                    f"{spelled(given)}",
                )


def _type(step: Step, name: str) -> Any:
    """Return the annotation, or Any where it is missing or cannot be resolved."""
    try:
        found = (
            result_type(step) if name == "return" else resolved(step.function, name, step.nearby)
        )
    except (Unresolved, ValueError):
        return Any
    if found is MISSING or isinstance(found, str):
        return Any
    return ArrayType(found.dtype) if isinstance(found, ArrayType) else found
