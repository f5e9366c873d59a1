"""Orders what a caller can compute by itself: functions by step, each with its needs."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from headstart._errors.suggestions import with_suggestion
from headstart._messages import arguments


class Fallbacks:
    """Functions by step, in an order in which each comes after what it needs.

    A parameter's name is the step whose value it takes. One with a default that no step is named
    like keeps its default.
    """

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        """Read the functions' signatures.

        Raises ValueError for none at all, a parameter that is no step, and for steps that need each
        other in a circle. Raises TypeError for what is no function.
        """
        if not functions:
            message = "fallback must have at least one step"
            raise ValueError(message)
        self.needs = {
            step: _needs(step, function, functions) for step, function in functions.items()
        }
        try:
            self.order = tuple(TopologicalSorter(self.needs).static_order())
        except CycleError as exc:
            circle = " -> ".join(exc.args[1])
            message = f"fallback: steps need each other in a circle: {circle}"
            raise ValueError(message) from None
        self._functions = dict(functions)

    def begin(self, step: str, needed: Mapping[str, Any]) -> Awaitable[Any]:
        """Call a step's function with the values that it needs."""
        made = self._functions[step](**needed)
        if not inspect.isawaitable(made):
            message = f"fallback[{step!r}] must be an async function"
            raise TypeError(message)
        return made


def _needs(
    step: str, function: Callable[..., Any], functions: Mapping[str, object]
) -> tuple[str, ...]:
    arguments.function(f"fallback[{step!r}]", function)
    needs = []
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # some of Python's own, such as int
        return ()
    for name, parameter in parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and name in functions:
            needs.append(name)
        elif parameter.default is parameter.empty:
            known = ", ".join(functions)
            rule = f"parameter {name!r} must be one of its steps: {known}"
            message = f"fallback[{step!r}]: {with_suggestion(rule, name, functions)}"
            raise ValueError(message)
    return tuple(needs)
