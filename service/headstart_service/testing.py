"""Runs a pipeline inside a test: the real planning, runner and codec, and no Redis.

Callers use it as `headstart.testing.run_pipeline`, which documents it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from headstart import InvalidRequest as InvalidInputs
from headstart import Violation
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
    Claim,
    FailureReason,
    ItemsChunk,
    Job,
    Lease,
    RunKey,
    RunPlan,
    RunSummary,
    Status,
    StepRecord,
    StepState,
)
from .domain.errors import InvalidRequest
from .pipeline.pipeline import Pipeline
from .pipeline.step import Step
from .values.fragments import merged
from .values.items import of_item
from .worker.run import run

_KEY = RunKey("default", "test")


async def run_pipeline(
    pipeline: Pipeline,
    inputs: Mapping[str, Any] | BaseModel,
    *,
    providers: Mapping[str, Any],
    timeout: float,  # noqa: ASYNC109  # it becomes asyncio.timeout
) -> PipelineRun:
    """See `headstart.testing.run_pipeline`."""
    if not isinstance(pipeline, Pipeline):
        raise TypeError(f"run_pipeline runs a Pipeline, not {type(pipeline).__name__}")
    _check_providers(pipeline, providers)
    plan = _plan(pipeline, inputs)
    exceptions: dict[str, BaseException] = {}
    watched = dataclasses.replace(
        pipeline, steps=tuple(_watched(s, pipeline, exceptions) for s in pipeline.steps)
    )
    sink = _MemorySink()
    now_us = time.time_ns() // 1000
    job = Job(partition=0, entry="0-1", key=_KEY, run="0-1")
    claim = Claim(
        lease=Lease(job, attempt=1),
        revision=1,
        pipeline=plan.pipeline,
        inputs=plan.inputs,
        ended={},
        at_us=now_us,
    )
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            status = await run(claim, watched, providers, sink)
    except TimeoutError as error:
        if not limit.expired():
            raise
        left = [name for name in plan.steps if name not in sink.ended]
        message = f"after {timeout:g} s these steps had not ended: {', '.join(left)}"
        raise TimeoutError(message) from error
    return _pipeline_run(pipeline, plan, sink, status, now_us, exceptions)


class _MemorySink:
    """Keeps one run's progress, as the store would."""

    def __init__(self) -> None:
        self.ended: dict[str, StepRecord] = {}
        self.error = ""
        self.failure_reason: FailureReason | None = None

    async def commit(
        self, lease: Lease, ended: Sequence[StepRecord], running: Sequence[StepRecord]
    ) -> None:
        """Keep what ended."""
        del lease, running
        self.ended.update((record.name, record) for record in ended)

    async def keep_items(self, lease: Lease, chunk: ItemsChunk) -> bool:
        """Keep nothing: the step's result will have all items."""
        del lease, chunk
        return True

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


def _check_providers(pipeline: Pipeline, providers: Mapping[str, Any]) -> None:
    """Raise ValueError unless exactly what the steps take is given."""
    wanted = pipeline.providers()
    for name in sorted(wanted - providers.keys()):
        takers = [step.name for step in pipeline.steps if name in step.parameters]
        known = sorted((*pipeline.inputs.model_fields, *pipeline.by_name, *providers))
        raise ValueError(
            f"pipeline {pipeline.name}: {' and '.join(takers)} takes {name}, which is no input, "
            f"step or provider; pass providers={{{name!r}: …}}, or mend the "
            f"parameter's name (there are {', '.join(known)})"
        )
    if unused := sorted(providers.keys() - wanted):
        takes = ", ".join(sorted(wanted)) or "none"
        raise ValueError(
            f"pipeline {pipeline.name}: no step takes the provider {', '.join(unused)}; "
            f"its steps take {takes}"
        )


def _plan(pipeline: Pipeline, inputs: Mapping[str, Any] | BaseModel) -> RunPlan:
    """The run of these inputs, sent as the client sends them. Raises the client's error."""
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

    def given_on(value: Any) -> Any:
        if not step.each:  # another item may have failed
            exceptions.pop(step.name, None)
        try:
            name = of_item(step.name) if step.each else step.name
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

    if inspect.iscoroutinefunction(step.function):
        return dataclasses.replace(step, function=on_loop)
    if getattr(step, "runs_on", "thread") == "thread":
        return dataclasses.replace(step, function=in_thread)
    return step  # in another process, which would find neither these functions nor `exceptions`


def _pipeline_run(
    pipeline: Pipeline,
    plan: RunPlan,
    sink: _MemorySink,
    status: Status,
    began_us: int,
    exceptions: Mapping[str, BaseException],
) -> PipelineRun:
    """The run as its caller sees it, read from the fragments that a store would keep."""
    fragments = b"".join(record.fragment for record in sink.ended.values())
    message = pb.GetResultsResponse.FromString(merged(fragments) or fragments)
    ended_us = time.time_ns() // 1000
    summary = RunSummary(
        key=_KEY,
        pipeline=pipeline.name,
        revision=1,
        status=status,
        created_us=began_us,
        started_us=began_us,
        completed_us=ended_us,
        expires_us=ended_us,
        error=sink.error,
        failure_reason=sink.failure_reason,
    )
    fill_summary(message, summary)
    results = results_from(message)
    steps = {name: results.steps[name] for name in plan.steps}
    values = {
        name: pipeline.codec.decode(name, sink.ended[name].fragment)
        for name in plan.steps
        if sink.ended[name].state is StepState.COMPLETED
    }
    return PipelineRun(
        status=results.status,
        error=results.error,
        values=StepValues(values, steps),
        steps=steps,
        exceptions=exceptions,
        results=results,
    )
