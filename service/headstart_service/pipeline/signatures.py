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
from ..values.items import Item, ItemsKind, of_item
from ..values.kinds import AnyKind, JsonKind, Kind, kind_of
from .each import NOT_A_LIST, item_type
from .mistakes import Mistake, line_of
from .step import Step
from .streams import result_type


def kinds(steps: Collection[Step]) -> tuple[dict[str, Kind], list[Mistake]]:
    """Return each step's kind of value, and a mistake for each step without one.

    A step that runs for each item of a list has a second kind: that of one item's value.
    """
    found: dict[str, Kind] = {}
    mistakes = []
    for step in steps:
        try:
            annotation = result_type(step)
            kind = kind_of(annotation)
            if step.each:
                found[of_item(step.name)], kind = kind, _items_kind(annotation, kind)
            found[step.name] = kind
        except (Unresolved, ValueError) as error:
            where = line_of(step.function, "return")
            mistakes.append(Mistake(where, f"step {step.name}, return type: {error}"))
    return found, mistakes


def _items_kind(annotation: Any, item: Kind) -> Kind:
    if not isinstance(item, AnyKind | JsonKind):
        rule = "which a step with each must return"
        raise ValueError(f"{item.text} is not kept as JSON, {rule}")  # noqa: TRY004  # a declaration's
    return ItemsKind(annotation, item)


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
        if step.each and step.each not in {*steps, *inputs}:
            yield Mistake(
                line_of(step.function, step.each),
                f"step {step.name}: each is {step.each}, which must be an input or a step "
                f"(there are {', '.join(sorted({*inputs, *steps}))})",
            )
        for name in step.parameters:
            wanted = declared_type(step, name)
            if name in steps:
                given, whose = value_type(steps[name]), f"step {name} returns"
            elif name in inputs:
                given, whose = inputs[name], f"input {name} is"
            else:
                continue
            where = line_of(step.function, name)
            if name == step.each:
                whole, given, whose = given, item_type(given), f"an item of {name} is"
                if given is NOT_A_LIST:
                    rule = f"each is {name}, which is {spelled(whole)}, not a list"
                    yield Mistake(where, f"step {step.name}: {rule}")
                    continue
            if not fits(given, wanted):
                yield Mistake(
                    where,
                    f"step {step.name}: parameter {name} is {spelled(wanted)}, but {whose} "
                    f"{spelled(given)}",
                )


def value_type(step: Step) -> Any:
    """Return the type of what other steps get of this one."""
    returned = declared_type(step, "return")
    return list[Item[returned]] if step.each else returned  # type: ignore[valid-type]


def declared_type(step: Step, name: str) -> Any:
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
