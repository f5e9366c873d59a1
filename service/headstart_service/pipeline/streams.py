"""Steps that stream: async generators, whose annotation says what they yield and what they give."""

from __future__ import annotations

import inspect
import types
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from dataclasses import dataclass
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Final, Union, get_args, get_origin

from ..domain import PartialForm
from ..values.annotations import MISSING, resolved, spelled

if TYPE_CHECKING:
    from .step import Step

_ITERATORS: Final = (AsyncIterator, AsyncGenerator, AsyncIterable)
_RULE: Final = (
    "an async generator is annotated -> AsyncIterator[str] for text, AsyncIterator[T] for items, "
    "or AsyncIterator[str | T] for text and a last value"
)


@dataclass(frozen=True, slots=True)
class Streaming:
    """What an async generator yields."""

    form: PartialForm
    item: Any
    """The type of each item, or of the last value behind the text; MISSING for text alone."""
    result: Any
    """The type of the step's result."""

    @property
    def ends_with_value(self) -> bool:
        """Whether the last thing that it yields is the step's result, and not text."""
        return self.form is PartialForm.TEXT and self.item is not MISSING


def streaming_of(step: Step) -> Streaming | None:
    """Return what a step yields; None of one that only returns.

    Raises Unresolved for an annotation that cannot be read, and ValueError for a wrong one.
    """
    annotation = resolved(step.function, "return", step.nearby)
    origin = get_origin(annotation) or annotation
    if not step.streams:
        if origin in _ITERATORS:
            is_plain = inspect.isgeneratorfunction(step.function)
            why = "is no async def" if is_plain else "has no yield"
            raise ValueError(
                f"{spelled(annotation)} is for an async generator, and this function {why}"
            )
        return None
    if origin not in _ITERATORS or not get_args(annotation):
        raise ValueError(_RULE)
    item = get_args(annotation)[0]
    if item is str:
        return Streaming(PartialForm.TEXT, MISSING, str)
    parts = get_args(item) if get_origin(item) in (Union, types.UnionType) else ()
    if str in parts:
        last: Any = Union.__getitem__(tuple(part for part in parts if part is not str))
        return Streaming(PartialForm.TEXT, last, last)
    return Streaming(PartialForm.LINES, item, GenericAlias(list, (item,)))


def result_type(step: Step) -> Any:
    """Return the annotation of what a step gives to other steps; raises as `streaming_of`."""
    streaming = streaming_of(step)
    return resolved(step.function, "return", step.nearby) if streaming is None else streaming.result
