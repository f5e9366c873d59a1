"""The nine methods: each validates, converts, calls and converts back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from grpc.aio import ServicerContext

from headstart._for_service import INPUTS
from headstart.v1 import precompute_pb2 as pb

from ..domain import DEFAULT_NAMESPACE, Report, RunKey, RunPlan, Started, Status
from ..domain.errors import InvalidRequest, Violation
from ..domain.log_fields import fields
from ..pipeline.registry import Registry
from . import convert, reported
from .accounting_message import ledger_message
from .call_observer import CallObserver, CallObservers
from .ports import RunStore
from .results.answer import Answer, Message
from .results.reader import ResultReader

log = logging.getLogger(__name__)

Context = ServicerContext[Any, Any]

_MARGIN_SHARE = 0.1
_MARGIN_MIN = 0.02
_MARGIN_MAX = 0.25
_LARGE = 32 * 1024
"""Bytes of a start whose inputs may be many: reading 4 MB of them takes seconds of a thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRules:
    """What the API promises. Durations in seconds."""

    result_ttl: float
    max_records: int
    partitions: int = 1
    """Of the store: a list's order, and so its page tokens, depend on it."""
    separate: bool = False
    """Whether a namespace may learn nothing of the others: not even how much they have queued."""
    log_inputs: bool = False
    """Whether the log of a start shows its inputs."""


class PrecomputeServicer:
    """Implements headstart.v1.PrecomputeService; raises domain errors.

    GetResults and WatchResults return serialized messages, which callers of one run share.
    """

    def __init__(
        self,
        store: RunStore,
        registry: Registry,
        reader: ResultReader,
        rules: ApiRules,
        observer: CallObserver | None = None,
    ) -> None:
        self._store = store
        self._registry = registry
        self._reader = reader
        self._rules = rules
        self.observer = observer or CallObservers()

    async def start_precompute(
        self, request: pb.StartPrecomputeRequest, _: Context
    ) -> pb.StartPrecomputeResponse:
        """Validate everything, then one atomic transition."""
        key = convert.run_key(request.namespace, request.key)
        violations = key.violations()
        ttl = convert.seconds(
            request, "ttl", convert.MIN_TTL, convert.MAX_TTL, self._rules.result_ttl, violations
        )
        needed_in = None
        if request.HasField("expected_need_in"):
            needed_in = convert.seconds(
                request, "expected_need_in", 0, convert.MAX_NEED, 0.0, violations
            )
            if not request.HasField("ttl"):
                ttl += needed_in  # or it might be gone by then
        violations += convert.request_id_violations(request.request_id)
        if request.ByteSize() > _LARGE:
            plan = await asyncio.to_thread(self._plan, request, violations)
        else:
            plan = self._plan(request, violations)
        if plan is None or violations:
            raise InvalidRequest(violations)
        started = await self._store.start(
            key,
            plan,
            ttl,
            restart=request.restart,
            request_id=request.request_id,
            needed_in=needed_in,
        )
        # Before the caller knows of the start, nobody here may be given what was before it.
        self._reader.outdate(key)
        self._tell_start(key, plan, started)
        self.observer.started(started.outcome)
        return pb.StartPrecomputeResponse(
            namespace=key.namespace,
            key=key.key,
            outcome=convert.outcome(started.outcome),
            status=convert.status(started.status),
            revision=started.revision,
        )

    def ready_results(self, request: pb.GetResultsRequest) -> Answer | None:
        """What this process can answer at once, if nothing about the request needs a second look.

        Most calls are such, and each of them is over in some microseconds: hence no more than this.
        """
        if (
            request.required_steps
            or request.min_revision
            or not 0 <= request.wait.seconds < convert.MAX_WAIT
        ):
            return None
        return self._reader.ready(RunKey(request.namespace or DEFAULT_NAMESPACE, request.key))

    async def get_results(self, request: pb.GetResultsRequest, context: Context) -> bytes:
        """Answer with what exists, before the wait and the caller's deadline are over."""
        violations: list[Violation] = []
        key = convert.run_key(request.namespace, request.key)
        violations += key.violations()
        violations += convert.repeated_violations("required_steps", request.required_steps)
        violations += convert.revision_violations("min_revision", request.min_revision)
        wait = convert.seconds(request, "wait", 0, convert.MAX_WAIT, 0.0, violations)
        convert.refuse(violations)
        if wait and (left := context.time_remaining()) is not None:
            wait = min(wait, left - _margin(left))
        return await self._reader.get(key, request.required_steps, wait, request.min_revision)

    async def watch_results(
        self, request: pb.WatchResultsRequest, _: Context
    ) -> AsyncGenerator[Message]:
        """Stream the results as they grow."""
        key = convert.checked_key(request.namespace, request.key)
        async with aclosing(self._reader.watch(key)) as watched:
            async for answer in watched:
                yield answer.message()

    async def get_status(self, request: pb.GetStatusRequest, _: Context) -> pb.GetStatusResponse:
        """Tell the status without the results."""
        key = convert.checked_key(request.namespace, request.key)
        return convert.status_response(await self._store.status(key))

    async def cancel_precompute(
        self, request: pb.CancelPrecomputeRequest, _: Context
    ) -> pb.CancelPrecomputeResponse:
        """End a live run."""
        key = convert.run_key(request.namespace, request.key)
        violations = key.violations()
        violations += convert.revision_violations("revision", request.revision)
        convert.refuse(violations)
        cancelled = await self._store.cancel(key, request.revision)
        self._reader.outdate(key)
        if cancelled.cancelled:
            told = fields("run.cancelled", key, revision=cancelled.revision)
            log.info("%s revision %d cancelled", key, cancelled.revision, extra=told)
        return pb.CancelPrecomputeResponse(
            namespace=key.namespace,
            key=key.key,
            cancelled=cancelled.cancelled,
            status=convert.status(cancelled.status),
            revision=cancelled.revision,
        )

    async def report_step(self, request: pb.ReportStepRequest, _: Context) -> pb.ReportStepResponse:
        """Keep a result that the caller has computed."""
        violations: list[Violation] = []
        key = convert.run_key(request.namespace, request.key)
        violations += key.violations()
        elapsed = convert.seconds(request, "elapsed", 0, convert.MAX_TTL, 0.0, violations)
        violations += reported.violations(request)
        convert.refuse(violations)
        # The run that it is for: should the key stand for another by then, that is not touched.
        seen = await self._store.status(key)
        name = seen.summary.pipeline
        pipeline = self._registry.require(name, "step")
        if request.ByteSize() > _LARGE:
            record = await asyncio.to_thread(reported.record, request, pipeline, elapsed)
        else:
            record = reported.record(request, pipeline, elapsed)
        report = Report(accepted=False, state=seen.states.get(request.step))
        if reported.is_of(request, seen.summary):
            needs = pipeline.needs(pipeline.by_name[request.step])
            report = await self._store.report(
                key, seen.run, request.revision, pipeline.runs_class, needs, record
            )
        if report.accepted:
            self._reader.outdate(key)
            told = fields("step.reported", key, revision=request.revision, step=request.step)
            log.info("%s %s reported by a caller", key, request.step, extra=told)
        return pb.ReportStepResponse(
            accepted=report.accepted, state=convert.step_state(report.state)
        )

    async def list_precomputes(
        self, request: pb.ListPrecomputesRequest, _: Context
    ) -> pb.ListPrecomputesResponse:
        """One page of what is kept."""
        violations = convert.listed_namespace_violations(request.namespace)
        limit = convert.page_size(request.page_size, violations)
        after = convert.from_page_token(request.page_token, self._rules.partitions, violations)
        statuses = convert.statuses(request.statuses, violations)
        convert.refuse(violations)
        # One more than asked for tells whether there is a next page.
        page = await self._store.list(request.namespace, statuses, after, limit + 1)
        response = pb.ListPrecomputesResponse()
        for summary in page[:limit]:
            convert.fill_summary(response.precomputes.add(), summary)
        if len(page) > limit:
            response.next_page_token = convert.page_token(
                page[limit - 1].key, self._rules.partitions
            )
        return response

    async def list_pipelines(
        self, _: pb.ListPipelinesRequest, __: Context
    ) -> pb.ListPipelinesResponse:
        """What can be started here."""
        descriptions = [convert.pipeline_description(pipeline) for pipeline in self._registry]
        return pb.ListPipelinesResponse(pipelines=descriptions)

    async def get_stats(self, request: pb.GetStatsRequest, _: Context) -> pb.GetStatsResponse:
        """Count what is kept, running and queued."""
        convert.refuse(convert.listed_namespace_violations(request.namespace))
        stats = await self._store.stats(request.namespace)
        queued = stats.queued_jobs
        if self._rules.separate and request.namespace:
            queued = stats.counts.get(Status.PENDING, 0)
        return pb.GetStatsResponse(
            total_cached=sum(stats.counts.values()),
            active_tasks=stats.counts.get(Status.IN_PROGRESS, 0),
            status_counts={status.value: count for status, count in stats.counts.items()},
            queued_jobs=queued,
            max_cached=self._rules.max_records,
            ledger=ledger_message(stats.ledger) if stats.ledger else None,
            unserved=stats.unserved,
        )

    def _tell_start(self, key: RunKey, plan: RunPlan, started: Started) -> None:
        """One line a start. Its inputs are their caller's matter, unless the operator asks."""
        told = {"revision": started.revision, "pipeline": plan.pipeline}
        if self._rules.log_inputs:
            told["inputs"] = plan.inputs.decode(errors="replace")
        extra = fields(f"run.{started.outcome}", key, **told)
        log.info("%s revision %d %s", key, started.revision, started.outcome, extra=extra)

    def _plan(
        self, request: pb.StartPrecomputeRequest, violations: list[Violation]
    ) -> RunPlan | None:
        """The run that the request describes; adds to `violations` when there is none."""
        try:
            match request.WhichOneof("spec"):
                case "bridging":
                    pipeline = self._registry.require("bridging", "bridging")
                    return pipeline.plan(convert.bridging_inputs(request.bridging), "bridging")
                case "custom":
                    name = request.custom.pipeline
                    pipeline = self._registry.require(name, "custom.pipeline")
                    return pipeline.plan(convert.custom_inputs(request.custom), INPUTS)
                case _:
                    violations.append(Violation("spec", "must be set: bridging or custom"))
        except InvalidRequest as error:
            violations.extend(error.violations)
        return None


def _margin(left: float) -> float:
    """How long before the caller's deadline to answer: what comes later is lost."""
    return min(max(left * _MARGIN_SHARE, _MARGIN_MIN), _MARGIN_MAX)
