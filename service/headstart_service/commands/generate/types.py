"""The types that a generated module can write, in no language yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias


class Basic(StrEnum):
    """A type without parts."""

    ANY = "any"
    NULL = "null"
    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    BYTES = "bytes"
    TENSOR = "tensor"


@dataclass(frozen=True, slots=True)
class Plain:
    """A type without parts."""

    basic: Basic


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these values."""

    values: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Items:
    """A list of any length."""

    item: Type


@dataclass(frozen=True, slots=True)
class Places:
    """A list of fixed length, with a type for each place."""

    items: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class Keyed:
    """An object whose names are not known."""

    value: Type


@dataclass(frozen=True, slots=True)
class Either:
    """A value of one of these types."""

    members: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A type that is defined elsewhere under this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Field:
    """A property of an object."""

    name: str
    type: Type
    required: bool


@dataclass(frozen=True, slots=True)
class Record:
    """An object with known properties. It stands under a name only."""

    fields: tuple[Field, ...]


Type: TypeAlias = Plain | Choice | Items | Places | Keyed | Either | Named | Record
ANY = Plain(Basic.ANY)
NULL = Plain(Basic.NULL)


def either(members: list[Type]) -> Type:
    """Return the union of these types, each once."""
    flat = [
        one for each in members for one in (each.members if isinstance(each, Either) else [each])
    ]
    if not flat or ANY in flat:
        return ANY
    once = tuple({repr(each): each for each in flat}.values())  # Choice((1,)) == Choice((True,))
    return once[0] if len(once) == 1 else Either(once)


def parts(kind: Type) -> Iterator[Type]:
    """Yield the types directly inside of this one."""
    match kind:
        case Items(inner) | Keyed(inner):
            yield inner
        case Places(several) | Either(several):
            yield from several
        case Record(fields):
            yield from (field.type for field in fields)


def named_in(kind: Type) -> Iterator[str]:
    """Yield the names that stand anywhere in this type."""
    if isinstance(kind, Named):
        yield kind.name
    for part in parts(kind):
        yield from named_in(part)


def renamed(kind: Type, names: Mapping[str, str]) -> Type:  # noqa: PLR0911  # one type a line
    """Return the type with other names."""
    match kind:
        case Named(name):
            return Named(names[name])
        case Items(item):
            return Items(renamed(item, names))
        case Keyed(value):
            return Keyed(renamed(value, names))
        case Places(items):
            return Places(tuple(renamed(each, names) for each in items))
        case Either(members):
            return Either(tuple(renamed(each, names) for each in members))
        case Record(fields):
            return Record(tuple(replace(each, type=renamed(each.type, names)) for each in fields))
    return kind
