"""Steps that run once for each item of a list: their options, and digests of items."""

from __future__ import annotations

import inspect
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
_MOST_PARALLEL: Final = 100
_MOST_ITEMS: Final = 10_000
NOT_A_LIST: Final = object()
"""Stands for the items of a type that is no list."""
_LISTS: Final = (list, tuple, Sequence)


def check_each(
    where: str, each: str, parallel: int, max_items: int, parameters: Sequence[inspect.Parameter]
) -> None:
    """Refuse options of `@step` that no step can have, `where` is the step and its line.

    Raises ValueError for a number out of its range, and TypeError for a wrong parameter.
    """
    if not each:
        if (parallel, max_items) != (PARALLEL, MAX_ITEMS):
            raise ValueError(f"{where}: parallel and max_items are for a step with each")
        return
    if not 1 <= parallel <= _MOST_PARALLEL:
        raise ValueError(f"parallel must be 1 to {_MOST_PARALLEL}, is {parallel}")
    if not 1 <= max_items <= _MOST_ITEMS:
        raise ValueError(f"max_items must be 1 to {_MOST_ITEMS:,}, is {max_items}")
    named = {parameter.name: parameter for parameter in parameters}
    if each not in named:
        raise TypeError(
            f"{where}: each is {each!r}, which must be one of its parameters: {', '.join(named)}"
        )
    if named[each].default is not inspect.Parameter.empty:
        raise TypeError(f"{where}: parameter {each} is an item, so it must have no default")


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
