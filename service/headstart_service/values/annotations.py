"""What a step's annotations mean, read without importing what only type checkers import.

An API process declares pipelines and must not load numpy. Where a module imports numpy under
TYPE_CHECKING, an array in an annotation is known by its name.
"""

from __future__ import annotations

import builtins
import inspect
import types
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Annotated, Any, Final, Union, get_args, get_origin

MISSING: Final = inspect.Parameter.empty
"""No annotation."""


class Unresolved(Exception):
    """An annotation that cannot be read; the text is the reason."""


class ArrayType:
    """An array in an annotation, of numpy's type `dtype`; of any if that is empty."""

    def __init__(self, dtype: str = "") -> None:
        self.dtype = dtype

    def __class_getitem__(cls, parameters: Any) -> ArrayType:
        each = parameters if isinstance(parameters, tuple) else (parameters,)
        return cls(_dtype_name(each[-1]))

    def __or__(self, other: Any) -> Any:
        return Union[self, other]  # noqa: UP007  # it is no type, so `|` would be this method

    __ror__ = __or__


class _Scalar:
    """A scalar type of numpy that is not loaded, or `dtype` of one."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getitem__(self, scalar: Any) -> Any:
        return scalar


class _Numpy:
    """Stands for numpy, and numpy.typing, where only type checkers import them."""

    ndarray = NDArray = ArrayType

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self if name == "typing" else _Scalar(name)


_STAND_INS: Final[Mapping[str, Any]] = {
    "np": _Numpy(),
    "numpy": _Numpy(),
    "npt": _Numpy(),
    "NDArray": ArrayType,
    "ndarray": ArrayType,
    "AsyncIterator": AsyncIterator,
    "AsyncGenerator": AsyncGenerator,
}


class _Names(dict[str, Any]):
    """What an annotation's names are: the module's, else builtins', else stand-ins."""

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            return getattr(builtins, name)
        if name in _STAND_INS:
            return _STAND_INS[name]
        raise NameError(name)


def resolved(function: Callable[..., Any], name: str, nearby: Mapping[str, Any]) -> Any:
    """The type of this parameter, or of what the function gives if `name` is "return".

    MISSING where it has none. `nearby` are names of the place of its definition, beside its
    module's. Raises Unresolved.
    """
    own = inspect.unwrap(function)
    annotation = own.__annotations__.get(name, MISSING)
    if not isinstance(annotation, str):
        return None if annotation is None else _array_or(annotation)
    names = _Names({**nearby, **own.__globals__, **nearby})
    try:
        # The text is the author's own code: the import of their module has run all of it already.
        kind = eval(annotation, {}, names)  # noqa: S307
        # The author may have quoted it once more.
        return _array_or(eval(kind, {}, names) if isinstance(kind, str) else kind)  # noqa: S307
    except NameError as error:
        raise Unresolved(
            f"{annotation}: {error.args[0]} is not imported when the module runs "
            "(under TYPE_CHECKING only numpy's names can be)"
        ) from error
    except Exception as error:
        raise Unresolved(f"{annotation}: {error}") from error


def written(function: Callable[..., Any], name: str) -> str:
    """The annotation as its author wrote it; empty where there is none."""
    annotation = inspect.unwrap(function).__annotations__.get(name, MISSING)
    if annotation is MISSING:
        return ""
    return annotation if isinstance(annotation, str) else spelled(annotation)


def spelled(kind: Any) -> str:  # noqa: PLR0911  # one form a line
    """A type as Python writes it, without modules."""
    if kind is None or kind is type(None):
        return "None"
    if isinstance(kind, ArrayType):
        return f"ndarray[{kind.dtype}]" if kind.dtype else "ndarray"
    if kind is ArrayType:
        return "ndarray"
    origin, parameters = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return spelled(parameters[0])
    if origin in (Union, types.UnionType):
        return " | ".join(map(spelled, parameters))
    if origin is not None:
        inside = ", ".join(_parameter(each) for each in parameters)
        name = getattr(origin, "__name__", None) or str(origin).removeprefix("typing.")
        return f"{name}[{inside}]"
    return getattr(kind, "__name__", None) or str(kind).removeprefix("typing.")


def _parameter(kind: Any) -> str:
    if kind is Ellipsis:
        return "..."
    return repr(kind) if isinstance(kind, str | int) else spelled(kind)


def _array_or(kind: Any) -> Any:
    """An ArrayType for any way of writing an array; any other type as it is."""
    if kind is ArrayType:
        return ArrayType()
    origin = get_origin(kind) or kind
    if is_numpys(origin, "ndarray"):
        parameters = get_args(kind)
        return ArrayType(_dtype_name(parameters[-1]) if parameters else "")
    return kind


def _dtype_name(parameter: Any) -> str:
    """Numpy's name of a scalar type or of dtype[it]; empty for any."""
    if isinstance(parameter, _Scalar):
        return parameter.name
    if is_numpys(get_origin(parameter), "dtype"):
        parameter = get_args(parameter)[0]
    return parameter.__name__ if isinstance(parameter, type) and is_numpys(parameter) else ""


def is_numpys(kind: Any, name: str = "") -> bool:
    """Whether a class is numpy's, of this name if one is given; numpy need not be loaded."""
    module = getattr(kind, "__module__", "")
    return module == "numpy" and (not name or getattr(kind, "__name__", "") == name)
