"""Gets the parts of a game at submit: ready ones, else those that come soon, else live ones."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from headstart import BridgingResults, HeadstartError, NotFound, PrecomputeClient, Results
from headstart_service.errors import StepFailed

from .live import Fallbacks

PATIENCE = 2.0
"""Seconds that are waited for steps under way, as in the seed, before they are computed here."""
AWAY = 0.25
"""Seconds that a service may take to answer when it has nothing to wait for."""

Source: TypeAlias = Literal["ready", "waited", "live", "failed"]


@dataclass(frozen=True)
class Part:
    """One step's part of the answer."""

    source: Source
    seconds: float
    """From submit until it was there."""
    value: Any = None
    error: str = ""


async def parts_of(
    client: PrecomputeClient, key: str | None, fallbacks: Fallbacks
) -> Mapping[str, Part]:
    """The parts that `fallbacks` names, from the run `key` if there is one, else by `fallbacks`.

    Never raises for a service that is away, slow, or has forgotten the key: what is missing is
    computed here. A part that fails here too is "failed".
    """
    began = time.perf_counter()
    parts: dict[str, Part] = {}
    if key is not None:
        await _precomputed(client, key, fallbacks, parts, began)
    await _compute(fallbacks, parts, began)
    return parts


async def _precomputed(
    client: PrecomputeClient,
    key: str,
    wanted: Fallbacks,
    parts: dict[str, Part],
    began: float,
) -> None:
    rounds: tuple[tuple[Source, float], ...] = (("ready", 0.0), ("waited", PATIENCE))
    for source, wait in rounds:
        try:
            results = await client.get_results(key, wait=wait, timeout=AWAY)
        except (HeadstartError, NotFound):
            return
        seconds = time.perf_counter() - began
        for step, value in values_of(results).items():
            if step in wanted and step not in parts:
                parts[step] = Part(source, seconds, value)
        if len(parts) == len(wanted) or results.status.ended:
            return


async def _compute(fallbacks: Fallbacks, parts: dict[str, Part], began: float) -> None:
    """Compute what `parts` lacks, each as soon as what it needs is there."""
    missing = {step: function for step, function in fallbacks.items() if step not in parts}
    tasks: dict[str, asyncio.Task[Part]] = {}

    async def part(function: Callable[..., Any]) -> Part:
        needed = {}
        for need in inspect.signature(function).parameters:
            got = parts[need] if need in parts else await tasks[need]
            if got.source == "failed":
                return Part("failed", time.perf_counter() - began, error=f"{need} failed")
            needed[need] = got.value
        try:
            value = await function(**needed)
        except StepFailed as error:  # its reason is fit for callers
            return Part("failed", time.perf_counter() - began, error=str(error))
        return Part("live", time.perf_counter() - began, value)

    async with asyncio.TaskGroup() as group:
        for step, function in missing.items():  # in an order in which needs come first
            tasks[step] = group.create_task(part(function), name=f"live {step}")
    parts.update({step: task.result() for step, task in tasks.items()})


def values_of(results: Results) -> dict[str, Any]:
    """What exists of a bridging run, by step, in the form of the fallbacks' values."""
    bridging = results.bridging
    if bridging is None:
        return {}
    values: dict[str, Any] = {
        "null_samples": bridging.null_samples,
        "haiku_bridge": bridging.haiku_clues,
        "haiku_embeddings": bridging.haiku_embeddings,
        "embed_endpoints": _several(
            bridging, "anchor_embedding", "target_embedding", "embedding_model"
        ),
        "lexical_bridge": _several(bridging, "lexical_bridge", "lexical_embeddings"),
    }
    return {step: value for step, value in values.items() if value is not None}


def _several(bridging: BridgingResults, *names: str) -> dict[str, Any] | None:
    values = {name: getattr(bridging, name) for name in names}
    return None if None in values.values() else values
