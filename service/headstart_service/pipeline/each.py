"""Steps that run once for each item of a list: their limits, and digests of items."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import to_json

from ..domain import digest

PARALLEL: Final = 8
"""Items that a step computes at a time, by default."""
MAX_ITEMS: Final = 1_000
"""Items that a list may have, by default."""
MOST_PARALLEL: Final = 100
MOST_ITEMS: Final = 10_000
NOT_A_LIST: Final = object()
"""Stands for the items of a type that is no list."""
_LISTS: Final = (list, tuple, Sequence)


def item_type(kind: Any) -> Any:
    """Return the type of the items of such a list; NOT_A_LIST if it is certainly none."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if kind is Any or kind is object:
        return Any
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        found = [each for each in map(item_type, inside) if each is not NOT_A_LIST]
        return Union[tuple(found)] if found else NOT_A_LIST  # noqa: UP007  # of a tuple
    if origin is tuple and inside[-1:] != (Ellipsis,):
        return Union[inside] if inside else Any  # noqa: UP007  # of a tuple
    if (origin or kind) in _LISTS:
        return inside[0] if inside else Any
    return NOT_A_LIST


def item_text(item: Any) -> str:
    """Return a text that is equal for equal items of inputs and of steps' values."""
    return to_json(item, inf_nan_mode="constants", serialize_unknown=True).decode()


class ItemDigests:
    """Digests of all that each item of one step's list is given in a run."""

    def __init__(
        self,
        about: Sequence[Any],
        each: str,
        parameters: Sequence[str],
        values: BaseModel,
        needed: Mapping[str, bytes],
    ) -> None:
        """Know what all items share.

        `about` are the versions of the pipeline and the step, and the step's maker. `each` is the
        one of its `parameters` that is an item. `needed` are the results of the steps that it needs
        and that there are, as fragments.
        """
        plain = values.model_dump(mode="json", round_trip=True, include=set(parameters))
        contents = {name: sha256(result).hexdigest() for name, result in needed.items()}
        self.basis: Final = digest([*about, "items", plain, contents])
        """Equal for two lists of equal items that are given the same else."""
        plain.pop(each, None)
        contents.pop(each, None)
        self._shared = digest([*about, "item", plain, contents])

    def of(self, item: str) -> str:
        """Return the digest of an item of this text."""
        return digest([self._shared, sha256(item.encode()).hexdigest()])


def item_seed(item: str) -> str:
    """Return what a step gets as its `step_digest` for an item of this digest."""
    return digest([item, "seed"])
