"""Names the rules that a run's inputs break, each by its path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from headstart._for_service import did_you_mean, with_suggestion

from ..domain.errors import Violation

_MOST: Final = 8
"""Violations of a request that get a suggestion: an answer has no room for more."""


def input_violations(error: ValidationError, model: type[BaseModel], path: str) -> list[Violation]:
    """Return a violation for each error of pydantic's; every path starts with `path`.

    For an unknown or missing name, the violation suggests the name that was probably meant.
    """
    details = error.errors(include_url=False, include_context=False)
    # Where a model forbids unknown names, each has an error of its own, with its suggestion.
    strict = {detail["loc"][:-1] for detail in details if detail["type"] == "extra_forbidden"}
    found: list[Violation] = []
    for detail in details:
        # pydantic puts this in front of the text of a ValueError that a validator raised.
        rule = detail["msg"].removeprefix("Value error, ")
        parents, name = detail["loc"][:-1], str(detail["loc"][-1]) if detail["loc"] else ""
        if len(found) < _MOST and detail["type"] == "extra_forbidden":
            rule = with_suggestion(rule, name, _names(model, parents))
        elif len(found) < _MOST and detail["type"] == "missing" and parents not in strict:
            given = detail["input"]
            unknown = set(given) - _names(model, parents) if isinstance(given, Mapping) else set()
            for wrong in sorted(map(str, unknown)):
                if did_you_mean(wrong, [name]):
                    rule = f"{rule}; there is {wrong!r}: {did_you_mean(wrong, [name])}"
                    break
        found.append(Violation(".".join(str(part) for part in (path, *detail["loc"])), rule))
    return found


def _names(model: type[BaseModel], parents: Sequence[int | str]) -> set[str]:
    """The names that the object at this place may have."""
    models = {model}
    for part in parents:
        # A part that names no field is an index, a key or the tag of a union.
        inner = {
            found
            for each in models
            for name, field in each.model_fields.items()
            if part in (name, field.alias, field.validation_alias)
            for found in _models_of(field.annotation)
        }
        models = inner or models
    return {
        field.validation_alias if isinstance(field.validation_alias, str) else name
        for each in models
        for name, field in each.model_fields.items()
    }


def _models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation such as `list[Model] | None` names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_of(argument)
