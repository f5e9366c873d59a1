"""Describes the JSON that a step's value becomes, as JSON Schema."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

_Field: TypeAlias = core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField


class _AsWritten(GenerateJsonSchema):
    """Names fields as they are written: a model's aliases only where its own config says so."""

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        """Return the schema of a model."""
        outer, config = self.by_alias, getattr(schema["cls"], "model_config", {})
        self.by_alias = bool(config.get("serialize_by_alias"))
        try:
            return super().model_schema(schema)
        finally:
            self.by_alias = outer

    def field_is_required(self, field: _Field, total: bool) -> bool:  # noqa: FBT001  # pydantic's
        """Return whether a field is always written: one with a default is, too."""
        if field["type"] == "typed-dict-field":
            return super().field_is_required(field, total)
        return field.get("serialization_exclude_if") is None


def output_schema(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """Return the schema of what this adapter writes. Raises what pydantic raises without one."""
    schema: dict[str, Any] = finite(
        adapter.json_schema(mode="serialization", by_alias=False, schema_generator=_AsWritten)
    )
    return schema


def finite(schema: Any) -> Any:
    """Return a JSON value without NaN and infinity, as of a default: JSON has neither."""
    match schema:
        case dict():
            return {name: finite(each) for name, each in schema.items() if not _is_no_json(each)}
        case list():
            return [finite(each) for each in schema if not _is_no_json(each)]
        case _:
            return schema


def _is_no_json(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
