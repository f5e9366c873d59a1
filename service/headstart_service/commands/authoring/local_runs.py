"""Runs a pipeline in this process as a worker would, without a server and without Redis."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from headstart import Results
from headstart._for_service import PipelineRun

from ...config.settings import Settings
from ...domain import RunPlan, Status, StepRecord, StepState
from ...pipeline.declared_providers import declared_providers
from ...pipeline.pipeline import Pipeline
from ...processes.local_providers import LocalProviders, open_local_providers
from ...testing import MemorySink, plan_of, results_of, run_pipeline
from ...values.fragments import started_of
from .step_errors import StepError, errors_of

_KEY: Final = "local"
"""What results name as their key, since no key was started."""

Progress = Callable[[Results], None]
"""Called with the results so far, whenever they change."""


@dataclass(frozen=True, slots=True)
class LocalRun:
    """A run that has ended."""

    results: Results
    values: Mapping[str, Any]
    began: Mapping[str, float]
    """Of each step that this run computed: how many seconds after the run's start it began."""
    errors: tuple[StepError, ...]


class LocalRuns:
    """Runs pipelines one after the other, with providers that stay open between."""

    def __init__(self, settings: Settings) -> None:
        """Open providers by these settings. Use it as an asynchronous context."""
        self._settings = settings
        self._stack = AsyncExitStack()
        self._opened: Mapping[str, Any] = {}
        self._providers = LocalProviders()

    async def open(self, pipeline: Pipeline) -> None:
        """Open the providers that the pipeline's steps name, unless they are open.

        Those of authors are opened again once their module is another, as it is after a change.
        Raises StartupError about what one of them lacks.
        """
        own = declared_providers(self._settings.providers)
        wanted = {n: n in own and sys.modules.get(own[n].module) for n in pipeline.providers()}
        if wanted == self._opened:
            return
        await self.aclose()
        opening = open_local_providers(self._settings, wanted.keys())
        self._providers = await self._stack.enter_async_context(opening)
        self._opened = wanted

    async def aclose(self) -> None:
        """Close the providers."""
        self._opened, self._providers = {}, LocalProviders()
        await self._stack.aclose()

    async def run(
        self,
        pipeline: Pipeline,
        inputs: Mapping[str, Any],
        *,
        kept: Callable[[RunPlan], Mapping[str, StepRecord]] = lambda _: {},
        completed: Callable[[Mapping[str, StepRecord]], None] = lambda _: None,
        progress: Progress = lambda _: None,
        timeout: float | None = None,  # noqa: ASYNC109  # it becomes asyncio.timeout
    ) -> LocalRun:
        """Run it to its end, without the steps that `kept` returns for its plan.

        Whatever ends the run, `completed` gets the records of completed steps that had all needs.
        Raises the client's InvalidRequest about the inputs, and TimeoutError.
        """
        plan = plan_of(pipeline, inputs)
        began_us = time.time_ns() // 1000

        def changed() -> None:
            progress(_named(results_of(pipeline, plan, sink, Status.IN_PROGRESS, began_us)))

        sink = MemorySink(kept(plan), changed)
        changed()
        try:
            with _quiet():
                run = await run_pipeline(
                    pipeline,
                    inputs,
                    providers=self._providers.values,
                    timeout=timeout,
                    sink=sink,
                    in_children=self._providers.in_children,
                )
        finally:
            completed(
                {
                    name: each
                    for name, each in sink.ended.items()
                    # What did without a need may be another value once the need has a result.
                    if each.state is StepState.COMPLETED and not each.degraded
                }
            )
        return LocalRun(
            results=_named(run.results),
            values=run.values,
            began=_began(run, sink.ended),
            errors=tuple(errors_of(pipeline, run)),
        )


@asynccontextmanager
async def local_runs(settings: Settings) -> AsyncIterator[LocalRuns]:
    """Open a `LocalRuns`, and close its providers at the end."""
    runs = LocalRuns(settings)
    try:
        yield runs
    finally:
        await asyncio.shield(runs.aclose())


def _named(results: Results) -> Results:
    return replace(results, key=_KEY)


def _began(run: PipelineRun, records: Mapping[str, StepRecord]) -> dict[str, float]:
    began = {}
    assert run.results.started_at is not None
    start = run.results.started_at.timestamp()
    for name, report in run.steps.items():
        started_us = started_of(name, records[name].fragment)
        if started_us and report.origin in (None, "computed"):
            began[name] = max(0.0, started_us / 1e6 - start)
    return began


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a worker logs of failed steps away: the errors of the run have it."""
    logger = logging.getLogger("headstart_service.worker")
    before, logger.propagate = logger.propagate, False
    nothing = logging.NullHandler()
    logger.addHandler(nothing)
    try:
        yield
    finally:
        logger.removeHandler(nothing)
        logger.propagate = before
