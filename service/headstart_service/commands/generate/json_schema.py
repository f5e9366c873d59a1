"""Reads types out of JSON Schema, as far as pydantic writes it. What it does not know is ANY."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .names import type_name
from .types import (
    ANY,
    NULL,
    Basic,
    Choice,
    Either,
    Field,
    Items,
    Keyed,
    Named,
    Places,
    Plain,
    Record,
    Type,
    either,
    named_in,
)

_BASIC: Final = {
    "null": NULL,
    "string": Plain(Basic.TEXT),
    "integer": Plain(Basic.INTEGER),
    "number": Plain(Basic.NUMBER),
    "boolean": Plain(Basic.BOOLEAN),
}
_DEFINITIONS: Final = "#/$defs/"
_NOT_GIVEN: Final = object()


@dataclass(frozen=True, slots=True)
class Parameter(Field):
    """An input of a pipeline."""

    null_is_default: bool
    """Whether null means the same as leaving it out."""


@dataclass(frozen=True, slots=True)
class Value:
    """A step's type, with the types that it names."""

    type: Type
    definitions: Mapping[str, Type]


@dataclass(frozen=True, slots=True)
class Inputs:
    """A pipeline's inputs, with the types that they name."""

    parameters: tuple[Parameter, ...]
    definitions: Mapping[str, Type]


def value_of(schema: Mapping[str, Any], name: str) -> Value:
    """Return the type of a value; `name` is for an object without a title."""
    reader = _Reader(schema)
    kind = reader.read(schema, name)
    return Value(kind, reader.definitions())


def inputs_of(schema: Mapping[str, Any]) -> Inputs:
    """Return the type of each input."""
    reader = _Reader(schema)
    if "$ref" in schema:  # a model that has itself inside
        schema = reader.definition(schema["$ref"]) or {}
    properties, required = _properties(schema)
    parameters = tuple(
        Parameter(
            name,
            reader.read(each, name),
            name in required,
            isinstance(each, Mapping) and each.get("default", _NOT_GIVEN) is None,
        )
        for name, each in properties.items()
    )
    # Those that must be given come first, as in a function that is written by hand.
    in_order = tuple(sorted(parameters, key=lambda each: not each.required))
    return Inputs(in_order, reader.definitions())


class _Reader:
    """Reads one schema."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        given = root.get("$defs")
        self._schemas: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        self._found: dict[str, Type] = {}

    def definition(self, reference: object) -> Mapping[str, Any] | None:
        """Return the schema that a `$ref` names."""
        found = self._schemas.get(_definition_name(reference))
        return found if isinstance(found, Mapping) else None

    def definitions(self) -> dict[str, Type]:
        """Return the named types that were read. One that is nothing but itself is ANY."""
        return {name: ANY if self._is_circle(name) else kind for name, kind in self._found.items()}

    def read(self, schema: object, name: str) -> Type:  # noqa: C901, PLR0911  # one keyword a line
        """Return the type of a schema; `name` is for an object without a title."""
        if not isinstance(schema, Mapping):
            return ANY
        if "$ref" in schema:
            return self._named(schema["$ref"])
        if "const" in schema:
            return _choice([schema["const"]])
        match schema:
            case {"enum": Sequence() as values}:
                return _choice(values)
            case {"anyOf": Sequence() as several} | {"oneOf": Sequence() as several}:
                return either([self.read(each, name) for each in several])
            case {"allOf": [only]}:
                return self.read(only, name)
            case {"type": "array"}:
                return self._array(schema, name)
            case {"type": "object"}:
                return self._object(schema, name)
            case {"type": str() as basic}:
                return _BASIC.get(basic, ANY)
            case {"type": Sequence() as several}:
                return either([self.read({**schema, "type": each}, name) for each in several])
        return ANY

    def _named(self, reference: object) -> Type:
        name, schema = _definition_name(reference), self.definition(reference)
        if schema is None:
            return ANY
        if name not in self._found:
            self._found[name] = ANY  # for what has itself inside
            self._found[name] = self._record(schema, name) or self.read(schema, name)
        return Named(name)

    def _array(self, schema: Mapping[str, Any], name: str) -> Type:
        places = schema.get("prefixItems")
        rest = schema.get("items")
        if not isinstance(places, Sequence) or not places:
            return Items(self.read(rest, name))
        types = [self.read(each, name) for each in places]
        if schema.get("minItems") == schema.get("maxItems") == len(types):
            return Places(tuple(types))
        if rest is not False and schema.get("maxItems") != len(types):
            types.append(self.read(rest, name))
        return Items(either(types))

    def _object(self, schema: Mapping[str, Any], name: str) -> Type:
        record = self._record(schema, name)
        if record is not None:
            title = schema.get("title")
            own = wanted = type_name(title if isinstance(title, str) else name)
            number = 1
            while own in self._found or own in self._schemas:
                number += 1
                own = f"{wanted}{number}"
            self._found[own] = record
            return Named(own)
        values = [schema.get("additionalProperties")]
        patterns = schema.get("patternProperties")
        if isinstance(patterns, Mapping) and patterns:
            others = [] if values in ([None], [False]) else values
            values = [*patterns.values(), *others]
        return Keyed(either([self.read(each, name) for each in values]))

    def _record(self, schema: Mapping[str, Any], name: str) -> Record | None:
        properties, required = _properties(schema)
        if schema.get("type") != "object" or not properties:
            return None
        return Record(
            tuple(
                Field(own, self.read(each, f"{name} {own}"), own in required)
                for own, each in properties.items()
            )
        )

    def _is_circle(self, name: str) -> bool:
        """Return whether a type is defined by itself, with no list or object between."""
        seen: set[str] = set()
        open_names = [name]
        while open_names:
            kind = self._found[open_names.pop()]
            if not isinstance(kind, Named | Either):
                continue
            members = kind.members if isinstance(kind, Either) else (kind,)
            direct = {each.name for each in members if isinstance(each, Named)}
            if name in direct:
                return True
            open_names += direct - seen
            seen |= direct
        return False


def reachable(kind: Type, definitions: Mapping[str, Type]) -> list[str]:
    """Return the names that a type needs, directly or through others."""
    found: list[str] = []
    open_names = list(named_in(kind))
    while open_names:
        name = open_names.pop()
        if name not in found:
            found.append(name)
            open_names += named_in(definitions[name])
    return sorted(found)


def _definition_name(reference: object) -> str:
    if not isinstance(reference, str) or not reference.startswith(_DEFINITIONS):
        return ""
    return reference.removeprefix(_DEFINITIONS).replace("~1", "/").replace("~0", "~")


def _properties(schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], set[str]]:
    properties, required = schema.get("properties"), schema.get("required")
    return (
        properties if isinstance(properties, Mapping) else {},
        {each for each in required if isinstance(each, str)}
        if isinstance(required, Sequence)
        else set(),
    )


def _choice(values: Sequence[object]) -> Type:
    """Return the type of one of these constants. Languages have no literal of a float."""
    kinds: list[Type] = []
    exact = tuple(each for each in values if isinstance(each, str | int))
    if exact:
        kinds.append(Choice(tuple({repr(each): each for each in exact}.values())))
    for value in values:
        match value:
            case None:
                kinds.append(NULL)
            case str() | int():
                pass
            case float():
                kinds.append(Plain(Basic.NUMBER))
            case _:
                kinds.append(ANY)
    return either(kinds)
