"""A run's inputs as they are kept: what a worker reads must be what the caller has sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, PydanticUserError, ValidationError


def written(values: BaseModel) -> bytes | None:
    """The inputs as JSON; None when they would be others, or none at all, when read again.

    So is a field that is left out, a secret, whose text is not written, or infinity.
    """
    wire = values.model_dump_json(by_alias=True, round_trip=True).encode()
    try:
        again = type(values).model_validate_json(wire)
    except ValidationError:
        return None
    try:
        fields = type(values).model_fields
        same = all(getattr(again, name) == getattr(values, name) for name in fields)
    except RecursionError:  # models that refer to each other, such as a tree's nodes
        same = again.model_dump_json(by_alias=True, round_trip=True).encode() == wire
    return wire if same and again.model_extra == values.model_extra else None


def unkept(pipeline: str, model: type[BaseModel]) -> list[str]:
    """What is wrong with a model of inputs: which fields would not survive being kept."""
    found = [
        f"pipeline {pipeline}: input {name} is excluded, so that no worker would get it"
        for name, field in model.model_fields.items()
        if field.exclude
    ]
    try:
        schema = model.model_json_schema()
    except PydanticUserError:
        return found
    for name, part in _parts(schema):
        if part.get("uniqueItems") is True:
            why = "is a set, whose order is another in each process: take a list"
            found.append(f"pipeline {pipeline}: input {name} {why}")
        elif part.get("writeOnly") is True:
            why = "is a secret, and inputs are kept: let a provider hold it"
            found.append(f"pipeline {pipeline}: input {name} {why}")
    return found


def _parts(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of a value in this one, with the name of the field that it is in."""
    for model in (schema, *schema.get("$defs", {}).values()):
        for name, value in model.get("properties", {}).items():
            waiting: list[Any] = [value]
            while waiting:
                one = waiting.pop()
                if isinstance(one, dict):
                    yield name, one
                    waiting.extend(v for k, v in one.items() if k not in ("default", "examples"))
                elif isinstance(one, list):
                    waiting.extend(one)
