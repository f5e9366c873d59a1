"""The places that a worker's steps run in. Each is set up when the first step wants it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from ...domain.errors import ExecutorUnavailable, StartupError
from ...pipeline.runs_on import REMOTE_EXECUTORS
from ..occupancy import occupying
from .child_providers import ChildProviders
from .code_identity import OtherCode, identity
from .event_loop import drive
from .processes import Child, Processes
from .threads import Threads
from .watchdog import Watchdog

if TYPE_CHECKING:
    from ...pipeline.pipeline import Pipeline
    from ...pipeline.step import Step
    from ..cost_meter import CostMeter
    from .ray_cluster import RayCluster

log = logging.getLogger(__name__)

_WAIT: Final = 10.0
"""Seconds that a step waits for its place, at most; its run is then handed on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorRules:
    """How much room there is for steps. Durations in seconds."""

    threads: int = 4
    processes: int = 2
    wait: float = 300.0
    """How long a step waits for a free thread or process, at most."""
    block_limit: float = 0.0
    """How long a step may keep the event loop for itself; 0 for no limit."""
    ray_address: str | None = None
    """None for what Ray finds, or one of this process's own."""
    prelude: tuple[str, ...] = ()
    """A function as module:name, and its arguments: each process for steps calls it first."""


_LOOSE_THREADS: Final = 512
"""Threads that loop steps may keep, most of them for good, before others wait for one."""


MakesRayCluster: TypeAlias = (
    "Callable[[str | None, Sequence[Step], Callable[[], None]], RayCluster]"
)
"""Makes a cluster from its address, its steps, and what is called when one changes state."""


class Executors:
    """Runs a step's function where `runs_on` names. Use it as an asynchronous context."""

    def __init__(
        self,
        rules: ExecutorRules | None = None,
        ray_cluster: MakesRayCluster | None = None,
        *,
        grace: float = 5.0,
        hung_after: float = 60.0,
    ) -> None:
        """Follow these rules; `ray_cluster` makes what runs steps on Ray.

        A step on the event loop may go on for `grace` seconds after its cancellation. An abandoned
        step in a thread counts as hung after `hung_after` seconds.
        """
        self._rules = rules or ExecutorRules()
        self._ray_cluster = ray_cluster
        self._grace = grace
        self._hung_after = hung_after
        self._watchdog = Watchdog(self._rules.block_limit)
        self._stack = AsyncExitStack()
        self._threads: Threads | None = None
        self._processes: Processes | None = None
        self._ray: RayCluster | None = None
        self._steps: dict[str, Sequence[Step]] = {}
        self._broken: dict[str, str] = {}
        self._connecting = asyncio.Lock()
        self._change = asyncio.Event()
        self.changed: Callable[[], None] = lambda: None
        """Called in the event loop whenever `unavailable` may have changed."""

    @property
    def unavailable(self) -> Mapping[str, str]:
        """The pipelines that this worker cannot run now, each with the reason."""
        return {
            pipeline: reason
            for pipeline, steps in self._steps.items()
            for step in reversed(steps)
            if (reason := self._reason(step)) is not None
        }

    @property
    def hung_threads(self) -> int:
        """How many threads run a step that was abandoned at least `hung_after` seconds ago."""
        return 0 if self._threads is None else self._threads.hung

    async def __aenter__(self) -> Self:
        # Steps on the loop use it through `asyncio.to_thread`, and asyncio itself to resolve names.
        # Threads that never return would soon keep all of asyncio's own: it has 5 on one core.
        loose = ThreadPoolExecutor(_LOOSE_THREADS, thread_name_prefix="to_thread")
        asyncio.get_running_loop().set_default_executor(loose)
        self._stack.enter_context(self._watchdog)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def prepare(
        self,
        pipelines: Iterable[Pipeline],
        steps_of: Callable[[Pipeline], Sequence[Step]] = lambda pipeline: pipeline.steps,
        providers: ChildProviders | None = None,
    ) -> None:
        """Set up what these pipelines' steps need, before any of them runs.

        Of each pipeline the worker runs what `steps_of` returns. Processes for steps open
        `providers`. A Ray that is away is waited for in the background, see `unavailable`. Raises
        StartupError when a process, or every node of Ray, cannot import a step's module.
        """
        self._steps = {pipeline.name: tuple(steps_of(pipeline)) for pipeline in pipelines}
        own = providers or ChildProviders()
        steps = [step for each in self._steps.values() for step in each]
        for step in steps:
            if step.runs_on in REMOTE_EXECUTORS:
                try:
                    for module in (step.function.__module__, *own.modules(step.parameters)):
                        identity(module)  # before its files can change
                except ValueError as error:
                    raise StartupError(f"step {step.name}: {error}") from error
        local = {step.function.__module__ for step in steps if step.runs_on == "process"}
        if local:
            await self._local().prepare(sorted(local), own)
        if any(step.runs_on == "ray" for step in steps):
            await self._cluster([step for step in steps if step.runs_on == "ray"])

    async def ready(self, step: Step) -> None:
        """Wait until the step's place can run it, at most its timeout or 10 s.

        Raises ExecutorUnavailable when it still cannot.
        """
        if step.runs_on not in REMOTE_EXECUTORS:
            return
        if step.runs_on == "ray":
            await self._cluster([step])
        with suppress(TimeoutError):
            async with asyncio.timeout(min(step.timeout, _WAIT)):
                while self._reason(step) is not None:
                    self._change.clear()
                    await self._change.wait()
        if (reason := self._reason(step)) is not None:
            raise ExecutorUnavailable(reason)

    async def call(
        self,
        step: Step,
        arguments: Mapping[str, Any],
        meter: CostMeter,
        begin: Callable[[], None] = lambda: None,
    ) -> Any:
        """Try the step once, and add its CPU seconds to `meter`; call `begin` when it begins.

        Raises what the function raises, and StepFailed when its executor failed it. Raises
        ExecutorUnavailable when the executor cannot run it now, or was lost while it ran.
        """
        if step.runs_on == "loop":
            begin()
            work = step.function(**arguments)
            return await drive(work, step.name, meter, self._watchdog, self._grace)
        with occupying():
            return await self._call_elsewhere(step, arguments, meter, begin)

    async def _call_elsewhere(
        self, step: Step, arguments: Mapping[str, Any], meter: CostMeter, begin: Callable[[], None]
    ) -> Any:
        match step.runs_on:
            case "thread":
                return await self._pool().call(step, arguments, meter, begin)
            case "process":
                try:
                    return await self._local().call(step, arguments, meter, begin)
                except OtherCode as error:
                    reason = f"its process {error}: the files have changed, restart this worker"
                    log.error("%s: %s", step.name, reason)  # noqa: TRY400  # no news in the trace
                    self._broken[step.function.__module__] = reason
                    self._notify()
                    raise ExecutorUnavailable(reason) from error
            case _:
                begin()
                return await (await self._cluster([step])).call(step, arguments, meter)

    def _pool(self) -> Threads:
        if self._threads is None:
            rules = self._rules
            self._threads = Threads(rules.threads, rules.wait, self._hung_after)
            self._stack.callback(self._threads.close)
        return self._threads

    def _local(self) -> Processes:
        if self._processes is None:
            start = partial(Child.start, prelude=self._rules.prelude)
            self._processes = Processes(self._rules.processes, self._rules.wait, start)
            self._stack.push_async_callback(self._processes.aclose)
        return self._processes

    async def _cluster(self, steps: Sequence[Step]) -> RayCluster:
        async with self._connecting:
            if self._ray is None:
                from .ray_cluster import RayCluster

                make = self._ray_cluster or RayCluster
                ray = make(self._rules.ray_address, steps, self._notify)
                self._stack.push_async_callback(ray.aclose)
                await ray.start()
                self._ray = ray
            return self._ray

    def _reason(self, step: Step) -> str | None:
        """Why the step cannot run now; None when it can."""
        if step.runs_on == "ray":
            return None if self._ray is None else self._ray.unavailable(step)
        return self._broken.get(step.function.__module__) if step.runs_on == "process" else None

    def _notify(self) -> None:
        self._change.set()
        self.changed()
