"""The places that a worker's steps run in. Each is set up when the first step wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .loop import drive
from .processes import Processes
from .threads import Threads
from .watchdog import Watchdog

if TYPE_CHECKING:
    from ..meter import Meter
    from ..pipeline import Pipeline
    from ..step import Step
    from .ray_cluster import RayCluster


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceRules:
    """How much room there is for steps. Durations in seconds."""

    threads: int = 4
    processes: int = 2
    block_limit: float = 0.0
    """How long a step may keep the event loop for itself; 0 for no limit."""
    ray_address: str | None = None
    """None for what Ray finds, or one of this process's own."""


class Places:
    """Runs a step's function where it says. Use it as an asynchronous context."""

    def __init__(self, rules: PlaceRules | None = None) -> None:
        self._rules = rules or PlaceRules()
        self._watchdog = Watchdog(self._rules.block_limit)
        self._stack = AsyncExitStack()
        self._threads: Threads | None = None
        self._processes: Processes | None = None
        self._ray: RayCluster | None = None
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._stack.enter_context(self._watchdog)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def prepare(self, pipelines: Iterable[Pipeline]) -> None:
        """Set up what these pipelines' steps need, before any of them runs.

        Raises StartupError when a process cannot import them, or Ray cannot be reached.
        """
        steps = [step for pipeline in pipelines for step in pipeline.steps]
        local = {step.function.__module__ for step in steps if step.runs_on == "process"}
        if local:
            await self._local().prepare(sorted(local))
        if any(step.runs_on == "ray" for step in steps):
            await self._cluster()

    async def call(self, step: Step, arguments: Mapping[str, Any], meter: Meter) -> Any:
        """Try the step once, with its CPU seconds told to `meter`.

        Raises what the function raises, or StepFailed when its place failed it.
        """
        match step.runs_on:
            case "thread":
                return await self._pool().call(step, arguments, meter)
            case "process":
                return await self._local().call(step, arguments, meter)
            case "ray":
                return await (await self._cluster()).call(step, arguments, meter)
            case _:
                work = step.function(**arguments)
                return await drive(work, step.name, meter, self._watchdog)

    def _pool(self) -> Threads:
        if self._threads is None:
            self._threads = Threads(self._rules.threads)
            self._stack.callback(self._threads.close)
        return self._threads

    def _local(self) -> Processes:
        if self._processes is None:
            self._processes = Processes(self._rules.processes)
            self._stack.push_async_callback(self._processes.aclose)
        return self._processes

    async def _cluster(self) -> RayCluster:
        async with self._connecting:
            if self._ray is None:
                from .ray_cluster import RayCluster

                self._ray = await RayCluster.connect(self._rules.ray_address)
                self._stack.push_async_callback(self._ray.aclose)
            return self._ray
