"""Reads a pipeline's steps: what each returns, and what is wrong with its signature."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..values.annotations import (
    MISSING,
    ArrayType,
    Unresolved,
    resolved,
    spelled,
    written,
)
from ..values.assignability import fits
from ..values.kinds import Kind, kind_of
from .mistakes import Mistake, line_of
from .step import DIGEST_PARAMETER, Step

if TYPE_CHECKING:
    from .pipeline import Pipeline


def kinds(steps: Collection[Step]) -> tuple[dict[str, Kind], list[Mistake]]:
    """Of each step the kind of its values, and what is wrong with those that have none."""
    found: dict[str, Kind] = {}
    mistakes = []
    for step in steps:
        try:
            found[step.name] = kind_of(resolved(step.function, "return", step.nearby))
        except (Unresolved, ValueError) as error:
            where = line_of(step.function, "return")
            mistakes.append(Mistake(where, f"step {step.name}, return type: {error}"))
    return found, mistakes


def output_type(pipeline: Pipeline, step: Step) -> str:
    """What the step returns, as Python writes it; empty where it does not say."""
    kind = getattr(pipeline.codec, "kinds", {}).get(step.name)
    return kind.text if kind is not None else written(step.function, "return")


def misfits(steps: Mapping[str, Step], inputs: Mapping[str, Any]) -> Iterator[Mistake]:
    """Parameters whose annotation cannot be true of the input or step that they name."""
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


def unknown_parameters(pipeline: Pipeline, providers: Collection[str]) -> list[Mistake]:
    """Parameters that are neither input nor step nor one of these providers."""
    known = {*pipeline.by_name, *pipeline.inputs.model_fields, DIGEST_PARAMETER, *providers}
    mistakes = []
    for step in pipeline.steps:
        for name in step.parameters:
            if name not in known:
                near = difflib.get_close_matches(name, known - {step.name}, 1)
                advice = f"did you mean {near[0]}?" if near else f"providers: {_listed(providers)}"
                mistakes.append(
                    Mistake(
                        line_of(step.function, name),
                        f"step {step.name}: parameter {name} is no input, step or provider of "
                        f"pipeline {pipeline.name}; {advice}",
                    )
                )
    return mistakes


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))


def _type(step: Step, name: str) -> Any:
    """The annotation, or Any where nothing can be said of it."""
    try:
        found = resolved(step.function, name, step.nearby)
    except Unresolved:
        return Any
    if found is MISSING or isinstance(found, str):
        return Any
    return ArrayType(found.dtype) if isinstance(found, ArrayType) else found
