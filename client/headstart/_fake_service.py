"""The methods of the contract as `headstart.testing.fake_server` answers them, from timetables."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

import grpc.aio
from google.protobuf.json_format import MessageToDict

from headstart._convert import BRIDGING_PIPELINE
from headstart._errors import InvalidRequest, NotFound, Violation
from headstart._fake_runs import FakeRun, Script, ScriptedStep, status_number
from headstart._results import BridgingResults, PrecomputeStatus, RecipientType, Results
from headstart.v1 import precompute_pb2 as pb

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_RESULT_TTL: Final = 1800.0
_LONGEST_WAIT: Final = 600.0
_LONGEST_KEY: Final = 256
_MAX_CACHED: Final = 10_000
_RECIPIENTS: Final = {
    pb.RECIPIENT_TYPE_HUMAN: RecipientType.HUMAN,
    pb.RECIPIENT_TYPE_HAIKU: RecipientType.HAIKU,
}


class FakeService:
    """Keeps runs as the service does. Everything but `scripts` belongs to one event loop."""

    def __init__(self, made_up: Callable[..., Results], default: Script) -> None:
        """`made_up` makes the results of a game for which none are scripted."""
        self.scripts: dict[tuple[str | None, str | None], Script] = {(None, None): default}
        """By key and pipeline; None is any."""
        self._made_up = made_up
        self._runs: dict[tuple[str, str], FakeRun] = {}
        self._change = asyncio.Event()

    def _changed(self) -> None:
        change, self._change = self._change, asyncio.Event()
        change.set()

    async def _until_change(self, run: FakeRun | None, deadline: float) -> None:
        """Return when a run was started or cancelled, this one looks different, or it is time."""
        now = time.monotonic()
        until = min(deadline, math.inf if run is None else run.next_change(now))
        # A little more than until then: timers may be early by their resolution.
        limit = None if until == math.inf else until - now + 0.001
        with suppress(TimeoutError):
            await asyncio.wait_for(self._change.wait(), limit)

    def _find(self, namespace: str, key: str, min_revision: int = 0) -> FakeRun:
        _check_key(key)
        run = self._runs.get((namespace or "default", key))
        if run is not None and time.monotonic() >= run.expires_at():
            del self._runs[run.namespace, run.key]
            run = None
        if run is None or run.revision < min_revision:
            raise NotFound(f"nothing is precomputed under {namespace or 'default'}/{key}")
        return run

    async def start_precompute(
        self, request: pb.StartPrecomputeRequest, _: Context
    ) -> pb.StartPrecomputeResponse:
        """Set a new timetable, unless there is one of the same inputs."""
        kind = request.WhichOneof("spec")
        if kind is None:
            raise _invalid("spec", "must be set: bridging or custom")
        try:
            old: FakeRun | None = self._find(request.namespace, request.key)
        except NotFound:
            old = None
        spec = getattr(request, kind).SerializeToString(deterministic=True)
        now = time.monotonic()
        ttl = request.ttl.ToTimedelta().total_seconds() if request.HasField("ttl") else _RESULT_TTL
        if old is not None and old.spec == spec and not request.restart:
            status = old.status(now)
            if not status.ended:
                old.ttl = max(old.ttl, ttl)
                return _started(pb.START_OUTCOME_JOINED, old, now)
            if status is PrecomputeStatus.COMPLETED:
                old.kept_until = max(old.kept_until, now + ttl)
                return _started(pb.START_OUTCOME_REUSED, old, now)
        run = self._new_run(request, spec, now, ttl)
        run.revision = 1 if old is None else old.revision + 1
        self._runs[run.namespace, run.key] = run
        self._changed()
        replaced = old is not None and old.spec != spec
        outcome = pb.START_OUTCOME_REPLACED if replaced else pb.START_OUTCOME_STARTED
        response = _started(outcome, run, now)
        response.status = pb.PRECOMPUTE_STATUS_PENDING  # no worker is so fast
        return response

    def _new_run(
        self, request: pb.StartPrecomputeRequest, spec: bytes, now: float, ttl: float
    ) -> FakeRun:
        game = request.HasField("bridging")
        pipeline = BRIDGING_PIPELINE if game else request.custom.pipeline
        script = self._script_for(request.key, pipeline)
        bridging: BridgingResults | None = None
        if game:
            results = self._game(request, script)
            steps, bridging = script.steps(results, {}), results.bridging
        else:
            steps = self._custom(request, script)
        return FakeRun(
            namespace=request.namespace or "default",
            key=request.key,
            pipeline=pipeline,
            spec=spec,
            revision=1,
            steps=steps,
            bridging=bridging,
            error=script.error,
            queued=script.queued,
            ttl=ttl,
            at=now,
        )

    def _game(self, request: pb.StartPrecomputeRequest, script: Script) -> Results:
        """What a game gives: what is scripted, or what it needs, made up."""
        if isinstance(script.results, Results) and script.results.bridging is not None:
            return script.results
        asked = request.bridging
        if asked.recipient_type not in _RECIPIENTS:
            raise _invalid("bridging.recipient_type", "must be human or haiku")
        counts = {
            name: getattr(asked, name)
            for name in ("clue_count", "null_sample_count")
            if asked.HasField(name)
        }
        recipient = _RECIPIENTS[asked.recipient_type]
        return self._made_up(request.key, recipient_type=recipient, **counts)

    def _custom(
        self, request: pb.StartPrecomputeRequest, script: Script
    ) -> dict[str, ScriptedStep]:
        """The steps of a run of any other pipeline, as they are scripted."""
        given = script.results
        game = isinstance(given, Results) and given.custom is None
        if game or (given is None and not script.failed):
            known = sorted({name for _, name in self.scripts if name} | {BRIDGING_PIPELINE})
            raise _invalid("custom.pipeline", f"must be one of: {', '.join(known)}")
        return script.steps(given, MessageToDict(request.custom.inputs))

    def _script_for(self, key: str, pipeline: str) -> Script:
        for place in ((key, pipeline), (key, None), (None, pipeline), (None, None)):
            if place in self.scripts:
                return self.scripts[place]
        raise AssertionError("there is always the one of all")

    async def get_results(
        self, request: pb.GetResultsRequest, context: Context
    ) -> pb.GetResultsResponse:
        """Answer with what has ended, before the wait and the caller's deadline are over."""
        wait = request.wait.ToTimedelta().total_seconds()
        if not 0 <= wait <= _LONGEST_WAIT:
            raise _invalid("wait", f"must be 0 to {_LONGEST_WAIT:g} seconds, is {wait:g}")
        left = context.time_remaining()
        if left is not None:
            # As the service does, so that a partial answer still arrives.
            wait = min(wait, left - min(max(left * 0.1, 0.02), 0.25))
        deadline = time.monotonic() + wait
        required = frozenset(request.required_steps)
        while True:
            run = self._find(request.namespace, request.key, request.min_revision)
            if unknown := [name for name in request.required_steps if name not in run.steps]:
                place = list(request.required_steps).index(unknown[0])
                rule = f"must be one of: {', '.join(sorted(run.steps))}"
                if run.pipeline != BRIDGING_PIPELINE:  # a game may leave out haiku's steps
                    raise _invalid(f"required_steps[{place}]", rule)
            now = time.monotonic()
            if now >= deadline or run.settles(now, required):
                return run.response(now)
            await self._until_change(run, deadline)

    async def watch_results(
        self, request: pb.WatchResultsRequest
    ) -> AsyncGenerator[pb.WatchResultsResponse, None]:
        """Stream the run as it grows, until it has ended."""
        while True:
            run = self._find(request.namespace, request.key)
            now = time.monotonic()
            yield pb.WatchResultsResponse(results=run.response(now))
            if run.status(now).ended:
                return
            await self._until_change(run, math.inf)

    async def get_status(self, request: pb.GetStatusRequest, _: Context) -> pb.GetStatusResponse:
        """Tell the status without the results."""
        return self._find(request.namespace, request.key).status_response(time.monotonic())

    async def cancel(
        self, request: pb.CancelPrecomputeRequest, _: Context
    ) -> pb.CancelPrecomputeResponse:
        """End a run that has not ended."""
        run, now = self._find(request.namespace, request.key), time.monotonic()
        cancelled = not run.status(now).ended
        if cancelled:
            run.cancelled_at = now
            self._changed()
        return pb.CancelPrecomputeResponse(
            namespace=run.namespace,
            key=run.key,
            cancelled=cancelled,
            status=status_number(run.status(now)),
            revision=run.revision,
        )

    def _kept(self, namespace: str) -> list[FakeRun]:
        now = time.monotonic()
        return [
            run
            for _, run in sorted(self._runs.items())
            if now < run.expires_at() and namespace in {"", run.namespace}
        ]

    async def list_precomputes(
        self, request: pb.ListPrecomputesRequest, _: Context
    ) -> pb.ListPrecomputesResponse:
        """One page of what is kept."""
        now, answer = time.monotonic(), pb.ListPrecomputesResponse()
        size, after = request.page_size or 100, request.page_token
        for run in self._kept(request.namespace):
            place = f"{run.namespace}:{run.key}"
            status = status_number(run.status(now))
            if place <= after or (request.statuses and status not in request.statuses):
                continue
            if len(answer.precomputes) == size:
                last = answer.precomputes[-1]
                answer.next_page_token = f"{last.namespace}:{last.key}"
                break
            run.fill(answer.precomputes.add(), now)
        return answer

    async def list_pipelines(
        self, _: pb.ListPipelinesRequest, __: Context
    ) -> pb.ListPipelinesResponse:
        """The pipelines that were scripted by name."""
        answer = pb.ListPipelinesResponse()
        for (_key, name), script in self.scripts.items():
            if name is not None:
                # A function's steps are not known before it has inputs.
                description = answer.pipelines.add(name=name, version="fake")
                if callable(script.results):
                    continue
                for step in script.steps(script.results, {}):
                    description.steps.add(name=step, max_attempts=1)
        return answer

    async def get_stats(self, request: pb.GetStatsRequest, _: Context) -> pb.GetStatsResponse:
        """Count what is kept."""
        now = time.monotonic()
        statuses = [run.status(now) for run in self._kept(request.namespace)]
        return pb.GetStatsResponse(
            total_cached=len(statuses),
            active_tasks=statuses.count(PrecomputeStatus.IN_PROGRESS),
            status_counts={str(each): statuses.count(each) for each in set(statuses)},
            queued_jobs=statuses.count(PrecomputeStatus.PENDING),
            max_cached=_MAX_CACHED,
        )


def _started(
    outcome: pb.StartOutcome.ValueType, run: FakeRun, now: float
) -> pb.StartPrecomputeResponse:
    return pb.StartPrecomputeResponse(
        namespace=run.namespace,
        key=run.key,
        outcome=outcome,
        status=status_number(run.status(now)),
        revision=run.revision,
    )


def _check_key(key: str) -> None:
    size = len(key.encode())
    if not 1 <= size <= _LONGEST_KEY:
        raise _invalid("key", f"must be 1 to {_LONGEST_KEY} bytes, is {size}")


def _invalid(field: str, rule: str) -> InvalidRequest:
    return InvalidRequest("", [Violation(field, rule)])
