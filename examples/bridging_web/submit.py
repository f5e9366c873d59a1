"""Gets the parts of a game at submit: from the service where that is faster, else computed here."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from headstart import Incomplete, PrecomputeClient
from headstart_service.domain.errors import StepFailed

from .live import Fallbacks

DEADLINE = 60.0
"""Seconds within which a submit is answered: more than Haiku's step may take."""
BUDGET = 0.025
"""Seconds that the service may take for its first answer, before computing begins here."""

Source: TypeAlias = Literal["ready", "waited", "live", "failed"]


@dataclass(frozen=True)
class Part:
    """One step's part of the answer."""

    source: Source
    seconds: float
    """From submit until it was there."""
    value: Any = None
    error: str = ""


@dataclass(frozen=True)
class _Failed:
    """What a step gives that could not be computed: the other parts are wanted all the same."""

    reason: str


async def parts_of(
    client: PrecomputeClient, key: str | None, fallbacks: Fallbacks, *, budget: float = BUDGET
) -> Mapping[str, Part]:
    """The parts that `fallbacks` names: with the help of the run `key`, or all computed here.

    Never raises for a service that is away, slow, or has forgotten the key. A part that fails here
    too, or is not there by the deadline, is "failed".
    """
    functions = {step: _failing(function) for step, function in fallbacks.items()}
    if key is None:
        return await _computed_here(functions)
    try:
        computed = await client.get_or_compute(key, DEADLINE, functions, budget=budget)
    except Incomplete as error:
        if error.computed is None:
            raise
        computed = error.computed
    late = Part("failed", DEADLINE, error=f"not there within {DEADLINE:g} s")
    there = {
        step: _part(computed.sources[step].value, computed.seconds[step], value)
        for step, value in computed.values.items()
    }
    return {step: there.get(step, late) for step in fallbacks}


async def _computed_here(functions: Fallbacks) -> Mapping[str, Part]:
    """What an application without Headstart does: each part as soon as what it needs is there."""
    began = time.perf_counter()
    tasks: dict[str, asyncio.Task[Any]] = {}
    parts: dict[str, Part] = {}

    async def compute(step: str, function: Callable[..., Awaitable[Any]]) -> Any:
        needs = inspect.signature(function).parameters
        value = await function(**{need: await tasks[need] for need in needs})
        parts[step] = _part("live", time.perf_counter() - began, value)
        return value

    async with asyncio.TaskGroup() as group:
        for step, function in functions.items():
            tasks[step] = group.create_task(compute(step, function), name=f"live {step}")
    return {step: parts[step] for step in functions}


def _failing(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The same function, but a step's failure, or that of one that it needs, is its value."""

    @functools.wraps(function)
    async def compute(**needed: Any) -> Any:
        for name, value in needed.items():
            if isinstance(value, _Failed):
                return _Failed(f"{name} failed")
        try:
            return await function(**needed)
        except StepFailed as error:  # callers may read its reason
            return _Failed(str(error))

    return compute


def _part(source: Source, seconds: float, value: Any) -> Part:
    if isinstance(value, _Failed):
        return Part("failed", seconds, error=value.reason)
    return Part(source, seconds, value)
