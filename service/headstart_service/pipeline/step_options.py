"""Checks the options of a step, each with its range."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from ..domain import pool_violation
from .each import MAX_ITEMS, MOST_ITEMS, MOST_PARALLEL, PARALLEL
from .mistakes import Mistake, line_of, refuse

DAY: Final = 86400.0
LONGEST_SETTLE: Final = 60.0
"""Seconds. A run lives much longer than that before it has ended, so no run expires meanwhile."""
LARGEST: Final = 60 * 1024 * 1024
"""Bytes: the most that HEADSTART_MAX_ARTIFACT_BYTES may be."""
_SHORTEST: Final = 0.001
_LIFETIMES: Final = {"ttl": 30 * DAY, "memo_failures": DAY}


def check_options(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    parameters: Iterable[inspect.Parameter],
) -> None:
    """Refuse all options of `step` that are out of their range, or do not fit the function.

    Raises DeclarationError. Each mistake names the file and line, the step, the option and what is
    allowed.
    """
    name = getattr(function, "__name__", repr(function))
    where = line_of(function)
    named = {parameter.name: parameter for parameter in parameters}
    refuse([Mistake(where, f"step {name}: {text}") for text in _mistakes(function, options, named)])


def _mistakes(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    parameters: Mapping[str, inspect.Parameter],
) -> Iterator[str]:
    if not _is_number(options["timeout"]) or options["timeout"] <= 0:
        yield f"timeout must be more than 0 seconds, is {options['timeout']!r}"
    attempts = options["max_attempts"]
    if not isinstance(attempts, int) or attempts < 1:
        yield f"max_attempts must be 1 or more, is {attempts!r}"
    if not _is_number(options["backoff"]) or options["backoff"] < 0:
        yield f"backoff must be 0 seconds or more, is {options['backoff']!r}"
    settle = options["settle"]
    if not _is_number(settle) or not 0 <= settle <= LONGEST_SETTLE:
        yield (
            f"settle must be 0 to {LONGEST_SETTLE:g} seconds, is {settle!r}; "
            "a run waits so long for stable inputs"
        )
    for option, longest in _LIFETIMES.items():
        yield from _lifetime(option, options[option], longest, memo=options["memo"])
    most = options["max_bytes"]
    if most is not None and not (isinstance(most, int) and 1 <= most <= LARGEST):
        yield f"max_bytes must be 1 to {LARGEST:,}, is {most!r}"
    yield from _kinds(options["retry_on"])
    pool = options["pool"]
    if pool and (rule := pool_violation(pool)):
        yield f"pool = {pool!r} {rule}"
    yield from _each(options, parameters)
    if options["each"] and inspect.isasyncgenfunction(function):
        yield "each gives one value for each item, so the step must not yield"


def _each(options: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> Iterator[str]:
    each, parallel, max_items = (options[name] for name in ("each", "parallel", "max_items"))
    if not each:
        if (parallel, max_items) != (PARALLEL, MAX_ITEMS):
            yield "parallel and max_items are for a step with each"
        return
    if not isinstance(parallel, int) or not 1 <= parallel <= MOST_PARALLEL:
        yield f"parallel must be 1 to {MOST_PARALLEL}, is {parallel!r}"
    if not isinstance(max_items, int) or not 1 <= max_items <= MOST_ITEMS:
        yield f"max_items must be 1 to {MOST_ITEMS:,}, is {max_items!r}"
    if each not in parameters:
        yield f"each is {each!r}, which must be one of its parameters: {', '.join(parameters)}"
    elif parameters[each].default is not inspect.Parameter.empty:
        yield f"parameter {each} is an item, so it must have no default"


def _lifetime(option: str, value: Any, longest: float, *, memo: bool) -> Iterator[str]:
    if value is None:
        return
    if not _is_number(value) or not _SHORTEST <= value <= longest:
        yield f"{option} must be 0.001 to {longest:.0f} seconds, is {value!r}"
    if not memo:
        yield f"{option} needs memo=True: only memos live for so long"


def _kinds(retry_on: Any) -> Iterator[str]:
    if retry_on is None:
        return
    rule = "retry_on must be a tuple of exceptions, such as (TimeoutError, OSError)"
    if not isinstance(retry_on, tuple):
        yield f"{rule}, is {retry_on!r}"
        return
    for each in retry_on:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            yield f"{rule}; {each!r} is no exception"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
