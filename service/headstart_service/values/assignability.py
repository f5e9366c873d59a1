"""Whether a value of one type can be of another: returns no only where that is certain."""

from __future__ import annotations

import inspect
import types
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from .annotations import ArrayType


def fits(given: Any, wanted: Any) -> bool:
    """Whether a `given` can be a `wanted`. What cannot be judged fits."""
    given, wanted = _bare(given), _bare(wanted)
    if _is_open(given) or _is_open(wanted):
        return True
    if _is_union(given):
        return any(fits(each, wanted) for each in get_args(given))
    if _is_union(wanted):
        return any(fits(given, each) for each in get_args(wanted))
    if isinstance(given, ArrayType) or isinstance(wanted, ArrayType):
        return _arrays_fit(given, wanted)
    return _classes_fit(given, wanted)


def _classes_fit(given: Any, wanted: Any) -> bool:
    have, need = get_origin(given) or given, get_origin(wanted) or wanted
    if not (inspect.isclass(have) and inspect.isclass(need)):
        return True
    if (have, need) == (int, float):
        return True
    try:
        related = issubclass(have, need) or issubclass(need, have)
    except TypeError:  # a protocol without runtime_checkable
        return True
    inside, wants = get_args(given), get_args(wanted)
    if not related or not inside or len(inside) != len(wants):
        return related
    return all(fits(a, b) for a, b in zip(inside, wants, strict=True))


def _arrays_fit(given: Any, wanted: Any) -> bool:
    if not (isinstance(given, ArrayType) and isinstance(wanted, ArrayType)):
        other = wanted if isinstance(given, ArrayType) else given
        # An array is never of a plain type; it may be of another type, such as a protocol.
        return other not in _PLAIN and get_origin(other) not in _PLAIN
    # Abstract types such as np.floating match several dtypes.
    exact = all(kind.dtype[-1:].isdigit() or kind.dtype == "bool" for kind in (given, wanted))
    return not exact or given.dtype == wanted.dtype


_PLAIN = frozenset({int, float, str, bytes, bool, list, tuple, dict, set})


def _bare(kind: Any) -> Any:
    """Without Annotated; None as its type."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return type(None) if kind is None else kind


def _is_open(kind: Any) -> bool:
    return kind is Any or kind is object or isinstance(kind, TypeVar) or kind is Ellipsis


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)
