"""Checks the options of a step, each with its range."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ..domain import pool_violation
from .each import MAX_ITEMS, MOST_ITEMS, MOST_PARALLEL, PARALLEL
from .mistakes import line_of

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
    parameters: Sequence[inspect.Parameter],
) -> None:
    """Refuse an option of `step` that is out of its range.

    Raises ValueError; for a `retry_on` of something else than exceptions TypeError. So it does for
    an `each` that is none of the function's `parameters`, or has a default, and of a step that
    streams. Each error names the file and line, the step, the option and what is allowed.
    """
    name = getattr(function, "__name__", repr(function))
    at = f"{line_of(function)}: step {name}"
    if not _is_number(options["timeout"]) or options["timeout"] <= 0:
        raise ValueError(f"{at}: timeout must be more than 0 seconds, is {options['timeout']!r}")
    attempts = options["max_attempts"]
    if not isinstance(attempts, int) or attempts < 1:
        raise ValueError(f"{at}: max_attempts must be 1 or more, is {attempts!r}")
    if not _is_number(options["backoff"]) or options["backoff"] < 0:
        raise ValueError(f"{at}: backoff must be 0 seconds or more, is {options['backoff']!r}")
    settle = options["settle"]
    if not _is_number(settle) or not 0 <= settle <= LONGEST_SETTLE:
        raise ValueError(
            f"{at}: settle must be 0 to {LONGEST_SETTLE:g} seconds, is {settle!r}; "
            "a run waits so long for stable inputs"
        )
    for option, longest in _LIFETIMES.items():
        _check_lifetime(at, option, options[option], longest, memo=options["memo"])
    most = options["max_bytes"]
    if most is not None and not (isinstance(most, int) and 1 <= most <= LARGEST):
        raise ValueError(f"{at}: max_bytes must be 1 to {LARGEST:,}, is {most!r}")
    _check_kinds(at, options["retry_on"])
    pool = options["pool"]
    if pool and (rule := pool_violation(pool)):
        raise ValueError(f"{at}: pool = {pool!r} {rule}")
    _check_each(at, options, parameters)
    if options["each"] and inspect.isasyncgenfunction(function):
        raise TypeError(f"{at}: each gives one value for each item, so the step must not yield")


def _check_each(
    at: str, options: Mapping[str, Any], parameters: Sequence[inspect.Parameter]
) -> None:
    each, parallel, max_items = (options[name] for name in ("each", "parallel", "max_items"))
    if not each:
        if (parallel, max_items) != (PARALLEL, MAX_ITEMS):
            raise ValueError(f"{at}: parallel and max_items are for a step with each")
        return
    if not isinstance(parallel, int) or not 1 <= parallel <= MOST_PARALLEL:
        raise ValueError(f"{at}: parallel must be 1 to {MOST_PARALLEL}, is {parallel!r}")
    if not isinstance(max_items, int) or not 1 <= max_items <= MOST_ITEMS:
        raise ValueError(f"{at}: max_items must be 1 to {MOST_ITEMS:,}, is {max_items!r}")
    named = {parameter.name: parameter for parameter in parameters}
    if each not in named:
        raise TypeError(
            f"{at}: each is {each!r}, which must be one of its parameters: {', '.join(named)}"
        )
    if named[each].default is not inspect.Parameter.empty:
        raise TypeError(f"{at}: parameter {each} is an item, so it must have no default")


def _check_lifetime(at: str, option: str, value: Any, longest: float, *, memo: bool) -> None:
    if value is None:
        return
    if not _is_number(value) or not _SHORTEST <= value <= longest:
        raise ValueError(f"{at}: {option} must be 0.001 to {longest:.0f} seconds, is {value!r}")
    if not memo:
        raise ValueError(f"{at}: {option} needs memo=True: only memos live for so long")


def _check_kinds(at: str, retry_on: Any) -> None:
    if retry_on is None:
        return
    rule = "retry_on must be a tuple of exceptions, such as (TimeoutError, OSError)"
    if not isinstance(retry_on, tuple):
        raise TypeError(f"{at}: {rule}, is {retry_on!r}")
    for each in retry_on:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise TypeError(f"{at}: {rule}; {each!r} is no exception")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
