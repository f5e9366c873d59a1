"""The values of a step that runs once for each item of a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from pydantic import TypeAdapter

from headstart.v1 import precompute_pb2 as pb

from ..domain import FailureReason
from .kinds import JsonKind, Kind

T = TypeVar("T")


@dataclass(frozen=True)  # with slots, Item[int](value=1) raises TypeError
class Item(Generic[T]):
    """What became of one item: its value, or why it has none."""

    value: T | None = None
    """None if it has failed."""
    error: str | None = None
    """Why it has failed; None if it has a value."""
    reason: FailureReason | None = None
    """The same as data."""

    @property
    def failed(self) -> bool:
        """Return whether it has failed."""
        return self.error is not None


def of_item(step: str) -> str:
    """Return the name under which a codec has the kind of one item of a step."""
    return f"{step}[]"


def written_item(value: str, error: str, reason: FailureReason | None) -> str:
    """Return an item as JSON: its value, which is JSON already, or its error and reason."""
    if reason is None:
        return f'{{"value":{value}}}'
    return _FAILED.dump_json({"error": error, "reason": reason}).decode()


_FAILED: Final = TypeAdapter(dict[str, str])


_FAILURE: Final = "ItemFailure"
_FAILURE_SCHEMA: Final = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "reason": {"type": "string"}},
    "required": ["error", "reason"],
    "additionalProperties": False,
}


class ItemsKind(JsonKind):
    """A list with a value or a reason for each item."""

    def __init__(self, annotation: Any, item: Kind) -> None:
        """Describe the list of a step whose function returns an `annotation`, a kind `item`."""
        super().__init__(list[Item[annotation]])
        self.text = f"list[Item[{item.text}]]"
        self.schema = _schema(item.schema)

    def write(self, value: Any, artifact: pb.Artifact) -> None:
        """See `Kind`."""
        kept: Sequence[Item[Any]] = value
        plain = JsonKind(list[Any])
        texts = []
        for each in kept:
            one = pb.Artifact()
            plain.write([each.value], one)
            texts.append(written_item(one.json[1:-1], each.error or "", each.reason))
        artifact.json = f"[{','.join(texts)}]"


def _schema(item: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the JSON Schema of the list; `item` is that of a value, if it has one."""
    value = dict(item or {})
    shared = {_FAILURE: _FAILURE_SCHEMA, **value.pop("$defs", {})}
    completed = {
        "type": "object",
        "properties": {"value": value},
        "required": ["value"],
        "additionalProperties": False,
    }
    items = {"anyOf": [completed, {"$ref": f"#/$defs/{_FAILURE}"}]}
    return {"type": "array", "items": items, "$defs": shared}
