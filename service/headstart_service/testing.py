"""Runs a pipeline inside a test: the real planning, runner and codec, and no Redis.

Callers use it as `headstart.testing.run_pipeline`, which documents it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel

from headstart import InvalidRequest as InvalidInputs
from headstart import Results, Violation
from headstart._for_service import (
    INPUTS,
    InputsError,
    PipelineRun,
    StepValues,
    results_from,
    write_inputs,
)
from headstart.v1 import precompute_pb2 as pb

from .api.messages import fill_summary
from .api.methods.start_precompute import custom_inputs
from .domain import (
    ALL_STEPS,
    Claim,
    FailureReason,
    ItemsChunk,
    Job,
    Lease,
    PartialWrite,
    RunKey,
    RunPlan,
    RunSummary,
    Status,
    StepRecord,
    StepState,
)
from .domain.errors import InvalidRequest, StartupError
from .pipeline.checks import provider_mistakes
from .pipeline.declared_providers import SETTING, declared_providers, split_references
from .pipeline.entry_points import PROVIDERS
from .pipeline.pipeline import Pipeline
from .pipeline.providers import BUILT_IN
from .pipeline.runs_on import REMOTE_EXECUTORS
from .pipeline.step import Step
from .values.fragments import merged, report_fragment
from .values.items import of_item
from .worker.cost_meter import CostMeter
from .worker.executors.child_providers import ChildProviders
from .worker.executors.executors import Executors
from .worker.given_in_try import GivenInTry
from .worker.run import run

_KEY = RunKey("default", "test")


async def run_pipeline(
    pipeline: Pipeline,
    inputs: Mapping[str, Any] | BaseModel,
    *,
    providers: Mapping[str, Any],
    timeout: float | None,  # noqa: ASYNC109  # it becomes asyncio.timeout
    sink: MemorySink | None = None,
    in_children: ChildProviders | None = None,
) -> PipelineRun:
    """See `headstart.testing.run_pipeline`.

    The run's progress goes to `sink`; steps that have ended there are not computed. Processes for
    steps open what `in_children` has; other providers are sent to them.
    """
    if not isinstance(pipeline, Pipeline):
        raise TypeError(f"run_pipeline runs a Pipeline, not {type(pipeline).__name__}")
    _check_providers(pipeline, providers)
    plan = plan_of(pipeline, inputs)
    exceptions: dict[str, BaseException] = {}
    watched = dataclasses.replace(
        pipeline, steps=tuple(_watched(s, pipeline, exceptions) for s in pipeline.steps)
    )
    sink = sink or MemorySink()
    limit = asyncio.timeout(timeout)
    try:
        async with limit, _Recording(exceptions) as executors:
            if any(step.runs_on == "process" for step in watched.steps):
                await executors.prepare([watched], providers=in_children)
            claim = _claim(plan, sink.ended)
            status = await run(claim, watched, providers, sink, executors=executors)
    except TimeoutError as error:
        if not limit.expired():
            raise
        left = [name for name in plan.steps if name not in sink.ended]
        message = f"after {timeout:g} s these steps had not ended: {', '.join(left)}"
        raise TimeoutError(message) from error
    return _pipeline_run(pipeline, plan, sink, status, claim.at_us, exceptions)


def _claim(plan: RunPlan, ended: Mapping[str, StepRecord]) -> Claim:
    """Claim a run of this plan, as of now."""
    job = Job(partition=0, entry="0-1", key=_KEY, run="0-1")
    return Claim(
        lease=Lease(job, attempt=1),
        revision=1,
        pipeline=plan.pipeline,
        inputs=plan.inputs,
        ended=dict(ended),
        at_us=time.time_ns() // 1000,
        awaited=frozenset({ALL_STEPS}),  # its caller waits, so nothing settles
    )


class MemorySink:
    """Keeps one run's progress, as the store would."""

    def __init__(
        self,
        ended: Mapping[str, StepRecord] | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin with the records of steps that have ended; call `changed` after each change."""
        self.ended = dict(ended or {})
        self.running: dict[str, StepRecord] = {}
        self._given: dict[str, GivenInTry] = {}
        self._changed = changed
        self.error = ""
        self.failure_reason: FailureReason | None = None
        self.ended_us = 0
        """When the run ended, in microseconds since the Unix epoch; 0 before."""

    async def commit(
        self, lease: Lease, ended: Sequence[StepRecord], running: Sequence[StepRecord]
    ) -> None:
        """Keep what ended, and what runs."""
        del lease
        self.ended.update((record.name, record) for record in ended)
        self.running.update((record.name, record) for record in running)
        self.running = {n: r for n, r in self.running.items() if n not in self.ended}
        self._changed()

    async def keep_items(self, lease: Lease, chunk: ItemsChunk) -> bool:
        """Show how far the step is; its result will have all items."""
        del lease
        self.running[chunk.step] = StepRecord(chunk.step, StepState.RUNNING, chunk.report)
        self._changed()
        return True

    async def append(self, lease: Lease, write: PartialWrite) -> int:
        """Keep what a step gives."""
        del lease
        given = self._given.get(write.step)
        if given is None or given.trial != write.trial:
            given = self._given[write.step] = GivenInTry(write.form, write.trial)
        if write.offset == len(given.data):
            given.data += write.data
        self._changed()
        return len(given.data)

    @property
    def partials(self) -> dict[str, str | list[Any]]:
        """What steps that stream have given, by step: text, or items."""
        return {step: given.value for step, given in self._given.items() if given.data}

    async def finish(
        self,
        lease: Lease,
        ended: Sequence[StepRecord],
        status: Status,
        error: str,
        failure_reason: FailureReason | None = None,
        slot_seconds: float | None = None,
    ) -> None:
        """Keep what ended, and why the run failed."""
        del status, slot_seconds
        await self.commit(lease, ended, ())
        self.error, self.failure_reason = error, failure_reason
        self.ended_us = time.time_ns() // 1000


def _check_providers(pipeline: Pipeline, providers: Mapping[str, Any]) -> None:
    """Raise ValueError unless exactly what the steps take is given, and workers have that too."""
    wanted = pipeline.providers()
    try:
        own = declared_providers(split_references(os.environ.get(SETTING, "")))
    except StartupError as error:
        raise ValueError(str(error)) from None
    mistakes = provider_mistakes(pipeline, own)
    if unknown := sorted(providers.keys() & wanted - own.keys() - BUILT_IN):
        raise ValueError(
            f"no worker has the provider {', '.join(unknown)}: register it by an entry point of "
            f"{PROVIDERS}, or by {SETTING}, here as in the service"
        )
    if mistakes:
        raise ValueError("\n".join(map(str, mistakes)))
    for name in sorted(wanted - providers.keys()):
        takers = [step.name for step in pipeline.steps if name in step.parameters]
        known = sorted((*pipeline.inputs.model_fields, *pipeline.by_name, *providers))
        raise ValueError(
            f"pipeline {pipeline.name}: {' and '.join(takers)} takes the provider {name}; pass "
            f"providers={{{name!r}: …}}, or mend the parameter's name (there are "
            f"{', '.join(known)})"
        )
    if unused := sorted(providers.keys() - wanted):
        takes = ", ".join(sorted(wanted)) or "none"
        raise ValueError(
            f"pipeline {pipeline.name}: no step takes the provider {', '.join(unused)}; "
            f"its steps take {takes}"
        )


class _Recording(Executors):
    """Notes what steps raise in other processes, where `_watched` cannot see it."""

    def __init__(self, exceptions: dict[str, BaseException]) -> None:
        super().__init__()
        self._exceptions = exceptions

    async def call(
        self,
        step: Step,
        arguments: Mapping[str, Any],
        meter: CostMeter,
        begin: Callable[[], None] = lambda: None,
    ) -> Any:
        """Do as `Executors.call`."""
        if step.runs_on not in REMOTE_EXECUTORS:
            return await super().call(step, arguments, meter, begin)
        self._exceptions.pop(step.name, None)
        try:
            return await super().call(step, arguments, meter, begin)
        except Exception as error:
            self._exceptions[step.name] = error
            raise


def plan_of(pipeline: Pipeline, inputs: Mapping[str, Any] | BaseModel) -> RunPlan:
    """Plan the run of these inputs, sent as the client sends them. Raises the client's error."""
    raw = (
        inputs.model_dump(mode="json", by_alias=True, round_trip=True)
        if isinstance(inputs, BaseModel)
        else inputs
    )
    try:
        spec = pb.CustomSpec(pipeline=pipeline.name, inputs_json=write_inputs(raw))
        return pipeline.plan(custom_inputs(spec), INPUTS)
    except InputsError as error:
        broken = [Violation(*rule) for rule in error.rules]
        raise InvalidInputs("no run was started", broken) from None
    except InvalidRequest as error:
        violations = [Violation(each.field, each.description) for each in error.violations]
        raise InvalidInputs("no run was started", violations) from None


def _watched(step: Step, pipeline: Pipeline, exceptions: dict[str, BaseException]) -> Step:
    """The step, keeping what it raises, or what its codec does."""
    if step.streams:
        return dataclasses.replace(step, function=_watched_stream(step, exceptions))
    name = of_item(step.name) if step.each else step.name

    def given_on(value: Any) -> Any:
        if not step.each:  # another item may have failed
            exceptions.pop(step.name, None)
        try:
            pipeline.codec.decode(name, pipeline.codec.encode(name, value))
        except Exception as error:  # noqa: BLE001  # any codec's; the runner meets it again
            exceptions[step.name] = error
        return value

    @functools.wraps(step.function)
    async def on_loop(**arguments: Any) -> Any:
        try:
            value = await step.function(**arguments)
        except Exception as error:
            exceptions[step.name] = error
            raise
        return given_on(value)

    @functools.wraps(step.function)
    def in_thread(**arguments: Any) -> Any:
        try:
            value: Any = step.function(**arguments)
        except Exception as error:
            exceptions[step.name] = error
            raise
        return given_on(value)

    return _with_function(step, on_loop, in_thread)


def _with_function(step: Step, on_loop: Callable[..., Any], in_thread: Callable[..., Any]) -> Step:
    if inspect.iscoroutinefunction(step.function):
        return dataclasses.replace(step, function=on_loop)
    if getattr(step, "runs_on", "thread") == "thread":
        return dataclasses.replace(step, function=in_thread)
    return step  # in another process, which would find neither these functions nor `exceptions`


def _watched_stream(
    step: Step, exceptions: dict[str, BaseException]
) -> Callable[..., AsyncGenerator[Any]]:
    """The function of a step that streams, keeping what it raises."""

    @functools.wraps(step.function)
    async def streaming(**arguments: Any) -> AsyncGenerator[Any]:
        exceptions.pop(step.name, None)
        cancelled: BaseException | None = None
        try:
            async with aclosing(step.function(**arguments)) as pieces:
                while True:
                    try:
                        piece = await (
                            anext(pieces) if cancelled is None else pieces.athrow(cancelled)
                        )
                    except StopAsyncIteration:
                        return
                    cancelled = None
                    try:
                        yield piece
                    except asyncio.CancelledError as error:
                        cancelled = error  # the step's, which may handle it
        except Exception as error:
            exceptions[step.name] = error
            raise

    return streaming


def results_of(
    pipeline: Pipeline, plan: RunPlan, sink: MemorySink, status: Status, began_us: int
) -> Results:
    """Return the run as its callers see it, read from the fragments that a store would keep."""
    records = {**sink.running, **sink.ended}
    fragments = b"".join(
        records[name].fragment if name in records else report_fragment(name, StepState.PENDING)
        for name in plan.steps
    )
    message = pb.GetResultsResponse.FromString(merged(fragments, began_us) or fragments)
    summary = RunSummary(
        key=_KEY,
        pipeline=pipeline.name,
        revision=1,
        status=status,
        created_us=began_us,
        started_us=began_us,
        completed_us=sink.ended_us,
        expires_us=sink.ended_us,
        error=sink.error,
        failure_reason=sink.failure_reason,
    )
    fill_summary(message, summary)
    results = results_from(message)
    return dataclasses.replace(
        results,
        steps={name: results.steps[name] for name in plan.steps},
        partials={name: sink.partials[name] for name in plan.steps if name in sink.partials},
    )


def _pipeline_run(
    pipeline: Pipeline,
    plan: RunPlan,
    sink: MemorySink,
    status: Status,
    began_us: int,
    exceptions: Mapping[str, BaseException],
) -> PipelineRun:
    """Return the run with its values."""
    results = results_of(pipeline, plan, sink, status, began_us)
    values = {
        name: pipeline.codec.decode(name, sink.ended[name].fragment)
        for name in plan.steps
        if sink.ended[name].state is StepState.COMPLETED
    }
    return PipelineRun(
        status=results.status,
        error=results.error,
        values=StepValues(values, results.steps),
        steps=results.steps,
        exceptions=exceptions,
        results=results,
    )
