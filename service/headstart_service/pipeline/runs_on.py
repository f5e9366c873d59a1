"""Checks that a step's function can run in the executor that `runs_on` names."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from .mistakes import Mistake, line_of, refuse_one

if TYPE_CHECKING:
    from .ray_options import RayOptions

EXECUTORS: Final = ("loop", "thread", "process", "ray")
REMOTE_EXECUTORS: Final = ("process", "ray")
"""The places that share no memory with the worker."""
ACTOR_PARAMETER: Final = "actor"
"""The parameter that gets the instance of `RayOptions.actor`."""


def check_function(
    function: Callable[..., Any], runs_on: str, ray: RayOptions | None = None
) -> None:
    """Refuse a function that `runs_on` cannot run, or with these options.

    Raises ValueError about the place or the options, TypeError about the function.
    """
    name = getattr(function, "__name__", repr(function))
    for error, text in _faults(function, runs_on, ray):
        refuse_one(Mistake(line_of(function), f"step {name}{text}"), error)


def _faults(
    function: Callable[..., Any], runs_on: str, ray: RayOptions | None
) -> Iterator[tuple[type[Exception], str]]:
    if runs_on not in EXECUTORS:
        yield ValueError, f": runs_on must be one of {', '.join(EXECUTORS)}, is {runs_on!r}"
        return
    if ray is not None and runs_on != "ray":
        yield ValueError, f": ray=RayOptions(…) needs runs_on='ray', is {runs_on!r}"
    takes_actor = ACTOR_PARAMETER in inspect.signature(function).parameters
    if ray is not None and ray.actor is not None and not takes_actor:
        actor = ray.actor.__name__
        yield TypeError, f" needs a parameter {ACTOR_PARAMETER}, which gets the {actor}"
    if inspect.isgeneratorfunction(function):
        yield TypeError, " yields, so it must be async: write async def"
        return
    if runs_on == "loop":
        if not (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
            yield TypeError, " must be an async function, or have runs_on='thread'"
        return
    if inspect.isasyncgenfunction(function):
        yield TypeError, " streams, as an async generator: it must have runs_on='loop'"
    if inspect.iscoroutinefunction(function):
        yield TypeError, f" must be a plain function to have runs_on={runs_on!r}"
    if runs_on in REMOTE_EXECUTORS and "<" in function.__qualname__:
        rule = "needs a function at the top of its module, which another process can import"
        yield TypeError, f": runs_on={runs_on!r} {rule}"


def find(module: str, name: str) -> Callable[..., Any]:
    """The function of the step that this module has under this name."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return getattr(found, "function", found)  # type: ignore[no-any-return]  # anything has a name
