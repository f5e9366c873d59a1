"""The methods of the contract as `headstart.testing.fake_server` answers them, from timetables."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final

from headstart._errors import NotFound
from headstart._errors.suggestions import not_one_of
from headstart._fake import batches, checks, pages
from headstart._fake.accounting import FakeAccounting
from headstart._fake.errors import Context
from headstart._fake.games import NEEDS, game_inputs, inputs_of
from headstart._fake.reported_steps import ReportedStep, check_form, check_result, reported_step
from headstart._fake.runs import FakeRun, status_number
from headstart._fake.script import Script, ScriptedStep
from headstart._fake.streams import advance
from headstart._messages.convert import BRIDGING_PIPELINE
from headstart._messages.inputs import INPUTS
from headstart._messages.result_parts import Changes, only_results
from headstart._messages.results import BridgingResults, PrecomputeStatus, Results
from headstart.v1 import precompute_pb2 as pb

_RESULT_TTL: Final = 1800.0
_MAX_CACHED: Final = 10_000


class FakeService:
    """Keeps runs as the service does. Everything but `scripts` belongs to one event loop."""

    def __init__(self, made_up: Callable[..., Results], default: Script) -> None:
        """Keep the script; `made_up` makes the results of a game for which none are scripted."""
        self.scripts: dict[tuple[str | None, str | None], Script] = {(None, None): default}
        """By key and pipeline; None is any."""
        self._made_up = made_up
        self.reported: list[ReportedStep] = []
        """In the order in which they came."""
        self._runs: dict[tuple[str, str], FakeRun] = {}
        self._accounting = FakeAccounting()
        self._change = asyncio.Event()

    def note_change(self) -> None:
        change, self._change = self._change, asyncio.Event()
        change.set()

    async def until_change(self, run: FakeRun | None, deadline: float) -> None:
        """Wait for a start, a cancel, a change of this run, or the deadline."""
        now = time.monotonic()
        until = min(deadline, math.inf if run is None else run.next_change(now))
        # A little longer: timers may fire early by their resolution.
        limit = None if until == math.inf else until - now + 0.001
        with suppress(TimeoutError):
            await asyncio.wait_for(self._change.wait(), limit)

    def _sweep(self) -> None:
        """Forget what has expired."""
        now = time.monotonic()
        for run in [run for run in self._runs.values() if now >= run.expires_at()]:
            self._accounting.gone(run, "expired", now)
            del self._runs[run.namespace, run.key]

    def _find(self, namespace: str, key: str) -> FakeRun:
        self._sweep()
        run = self._runs.get((namespace, key))
        if run is None:
            raise NotFound(f"nothing is precomputed under {namespace}/{key}")
        return run

    async def start_precompute(
        self, request: pb.StartPrecomputeRequest, _: Context
    ) -> pb.StartPrecomputeResponse:
        """Set a new timetable, unless there is one of the same inputs."""
        check = checks.Checks()
        namespace, key = check.run_key(request)
        ttl, needed_in = checks.times_of_start(request, check)
        request_id = checks.request_id_of_start(request, check)
        pipeline, inputs = self._inputs(request, check)
        check.refuse()
        lives = _RESULT_TTL + needed_in if ttl is None else ttl
        try:
            old: FakeRun | None = self._find(namespace, key)
        except NotFound:
            old = None
        now, spec = time.monotonic(), (pipeline, inputs)
        if old is not None and old.spec == spec and request_id and old.request_id == request_id:
            return _started(old.outcome, old, now)
        if old is not None and old.spec == spec and not request.restart:
            status = old.status(now)
            if not status.ended:
                old.ttl = max(old.ttl, lives)
                self._accounting.joined(old)
                return _started(pb.START_OUTCOME_JOINED, old, now)
            if status is PrecomputeStatus.COMPLETED:
                old.kept_until = max(old.kept_until, now + lives)
                self._accounting.reused(old)
                return _started(pb.START_OUTCOME_REUSED, old, now)
        run = self._new_run(namespace, key, pipeline, inputs)
        run.ttl = lives
        run.revision = 1 if old is None else old.revision + 1
        replaced = old is not None and old.spec != spec
        run.outcome = pb.START_OUTCOME_REPLACED if replaced else pb.START_OUTCOME_STARTED
        run.request_id = request_id
        if old is not None:
            self._accounting.gone(old, "replaced", now)
        self._runs[namespace, key] = run
        self._accounting.started(run)
        self.note_change()
        response = _started(run.outcome, run, now)
        response.status = pb.PRECOMPUTE_STATUS_PENDING  # no worker has taken it yet
        return response

    def _inputs(
        self, request: pb.StartPrecomputeRequest, check: checks.Checks
    ) -> tuple[str, dict[str, Any]]:
        """Return what is to be computed: a pipeline, and its inputs as they were checked."""
        match request.WhichOneof("spec"):
            case "bridging":
                given = inputs_of(request.bridging)
                return BRIDGING_PIPELINE, game_inputs(given, "bridging", check)
            case "custom" if request.custom.pipeline == BRIDGING_PIPELINE:
                named = checks.custom_inputs(request, check)
                inputs = {} if named is None else game_inputs(named, INPUTS, check)
                return BRIDGING_PIPELINE, inputs
            case "custom":
                name = request.custom.pipeline
                script = self._script_for(request.key, name)
                game = isinstance(script.results, Results) and script.results.custom is None
                if game or (script.results is None and not script.failed):
                    known = {name for _, name in self.scripts if name} | {BRIDGING_PIPELINE}
                    check.add("custom.pipeline", not_one_of(name, known))
                    return name, {}
                return name, checks.custom_inputs(request, check) or {}
        check.add("spec", "must be set: bridging or custom")
        return "", {}

    def _new_run(self, namespace: str, key: str, pipeline: str, inputs: dict[str, Any]) -> FakeRun:
        script = self._script_for(key, pipeline)
        bridging: BridgingResults | None = None
        steps: dict[str, ScriptedStep]
        if pipeline == BRIDGING_PIPELINE:
            results = script.results
            if not isinstance(results, Results) or results.bridging is None:
                about = {n: each for n, each in inputs.items() if n not in {"anchor", "target"}}
                results = self._made_up(key, **about)
            steps, bridging = script.steps(results, {}), results.bridging
        else:
            steps = script.steps(script.results, inputs)
        return FakeRun(
            namespace=namespace,
            key=key,
            pipeline=pipeline,
            spec=(pipeline, inputs),
            revision=1,
            steps=steps,
            needs=NEEDS if pipeline == BRIDGING_PIPELINE else script.needs,
            bridging=bridging,
            error=script.error,
            queued=script.queued,
            ttl=_RESULT_TTL,
            at=time.monotonic(),
        )

    def _script_for(self, key: str, pipeline: str) -> Script:
        for place in ((key, pipeline), (key, None), (None, pipeline), (None, None)):
            if place in self.scripts:
                return self.scripts[place]
        raise AssertionError("there is always the one of all")

    async def get_results(
        self, request: pb.GetResultsRequest, context: Context
    ) -> pb.GetResultsResponse:
        """Answer with what has ended, before the wait and the caller's deadline are over."""
        check = checks.Checks()
        namespace, key = check.run_key(request)
        wait = checks.wait_of(request, check)
        check.cursors(request)
        check.refuse()
        cursors = {each.step: each for each in request.partial_cursors}
        left = context.time_remaining()
        if wait and left is not None:
            # The service does the same, so that a partial answer still arrives.
            wait = min(wait, left - min(max(left * 0.1, 0.02), 0.25))
        deadline = time.monotonic() + wait
        required = frozenset(request.required_steps)
        while True:
            run, now = self._find(namespace, key), time.monotonic()
            self._accounting.read(run, now)
            if run.revision < request.min_revision:
                missing = f"{namespace}/{key} revision {request.min_revision}"
                raise NotFound(f"nothing is precomputed under {missing}")
            checks.check_steps(request, set(run.steps), _steps_of(run))
            if now >= deadline or run.settles(now, required):
                answer = _part(run.response(now), request.result_steps)
                if request.partial_results:
                    partials = run.partials(now, cursors, request.result_steps)
                    answer.partial_results.extend(partials)
                return answer
            await self.until_change(run, deadline)

    async def watch_results(
        self, request: pb.WatchResultsRequest
    ) -> AsyncGenerator[pb.WatchResultsResponse, None]:
        """Stream the runs as they grow, until they have ended."""
        many = batches.watch_many(self._watch, request) if request.keys else self._watch(request)
        async with aclosing(many) as messages:
            async for message in messages:
                yield message

    async def _watch(
        self, request: pb.WatchResultsRequest
    ) -> AsyncGenerator[pb.WatchResultsResponse, None]:
        namespace, key = checks.checked_watch(request)
        changes = Changes(request.result_steps)
        cursors = {each.step: each for each in request.partial_cursors}
        while True:
            run, now = self._find(namespace, key), time.monotonic()
            self._accounting.read(run, now)
            checks.check_steps(request, set(run.steps), _steps_of(run))
            results = run.response(now)
            if request.changes_only:
                part = changes.since(results.SerializeToString())
                results = pb.GetResultsResponse.FromString(part)
            message = pb.WatchResultsResponse(results=_part(results, request.result_steps))
            if request.partial_results:
                partials = run.partials(now, cursors, request.result_steps)
                message.partial_results.extend(partials)
                advance(cursors, partials)
            yield message
            if run.status(now).ended:
                return
            await self.until_change(run, math.inf)

    async def batch_start_precomputes(
        self, request: pb.BatchStartPrecomputesRequest, context: Context
    ) -> pb.BatchStartPrecomputesResponse:
        """Start many runs."""
        return await batches.start_many(self.start_precompute, request, context)

    async def batch_get_results(
        self, request: pb.BatchGetResultsRequest, context: Context
    ) -> pb.BatchGetResultsResponse:
        """Read many runs."""
        return await batches.get_many(self.get_results, request, context)

    async def get_status(self, request: pb.GetStatusRequest, _: Context) -> pb.GetStatusResponse:
        """Return the status without the results."""
        return self._find(*checks.checked_key(request)).status_response(time.monotonic())

    async def cancel_precompute(
        self, request: pb.CancelPrecomputeRequest, _: Context
    ) -> pb.CancelPrecomputeResponse:
        """End a run that has not ended."""
        namespace, key, revision = checks.run_and_revision(request)
        run, now = self._find(namespace, key), time.monotonic()
        cancelled = not run.status(now).ended and revision in {0, run.revision}
        if cancelled:
            self._accounting.gone(run, "cancelled", now)
            run.cancelled_at = now
            self.note_change()
        return pb.CancelPrecomputeResponse(
            namespace=run.namespace,
            key=run.key,
            cancelled=cancelled,
            status=status_number(run.status(now)),
            revision=run.revision,
        )

    async def delete_precompute(
        self, request: pb.DeletePrecomputeRequest, _: Context
    ) -> pb.DeletePrecomputeResponse:
        """Forget a run."""
        namespace, key, revision = checks.run_and_revision(request)
        self._sweep()
        run = self._runs.get((namespace, key))
        deleted = run is not None and revision in {0, run.revision}
        if run is not None and deleted:
            self._accounting.gone(run, "cancelled", time.monotonic())
            del self._runs[namespace, key]
            self.note_change()
        return pb.DeletePrecomputeResponse(namespace=namespace, key=key, deleted=deleted)

    async def touch_precompute(
        self, request: pb.TouchPrecomputeRequest, _: Context
    ) -> pb.TouchPrecomputeResponse:
        """Let a run live longer."""
        check = checks.Checks()
        namespace, key = check.run_key(request)
        given = checks.ttl_of(request, check)
        ttl = _RESULT_TTL if given is None else given
        check.revision("revision", request.revision)
        check.refuse()
        run, now = self._find(namespace, key), time.monotonic()
        if request.revision not in {0, run.revision}:
            missing = f"{namespace}/{key} revision {request.revision}"
            raise NotFound(f"nothing is precomputed under {missing}")
        run.ttl = max(run.ttl, ttl)
        if run.status(now).ended:
            run.kept_until = max(run.kept_until, now + ttl)
        found = run.status_response(now)
        return pb.TouchPrecomputeResponse(
            namespace=namespace,
            key=key,
            status=found.status,
            revision=run.revision,
            expires_at=found.expires_at,
        )

    async def create_run_token(
        self, request: pb.CreateRunTokenRequest, _: Context
    ) -> pb.CreateRunTokenResponse:
        """Return a made-up token: this server asks for none, and the service would refuse."""
        return checks.made_up_token(request)

    async def report_step(self, request: pb.ReportStepRequest, _: Context) -> pb.ReportStepResponse:
        """Keep a result that the caller has computed."""
        check = checks.Checks()
        namespace, key = check.run_key(request)
        checks.elapsed_of_report(request, check)
        check_form(request, check)
        check.refuse()
        run, now = self._find(namespace, key), time.monotonic()
        check_result(request, run.pipeline, _steps_of(run))
        accepted = run.report(request, now)
        self.reported.append(reported_step(request, run.pipeline, accepted=accepted))
        if accepted:
            self.note_change()
        return pb.ReportStepResponse(accepted=accepted, state=run.step_number(request.step, now))

    def _kept(self, namespace: str) -> list[FakeRun]:
        self._sweep()
        return [run for _, run in sorted(self._runs.items()) if namespace in {"", run.namespace}]

    async def list_precomputes(
        self, request: pb.ListPrecomputesRequest, _: Context
    ) -> pb.ListPrecomputesResponse:
        """One page of what is kept."""
        return pages.runs_page(request, self._kept(request.namespace))

    async def list_pipelines(
        self, request: pb.ListPipelinesRequest, _: Context
    ) -> pb.ListPipelinesResponse:
        """Return one page of the pipelines that were scripted by name."""
        return pages.pipelines_page(request, self.scripts)

    async def get_stats(self, request: pb.GetStatsRequest, _: Context) -> pb.GetStatsResponse:
        """Count what is kept."""
        check = checks.Checks()
        if request.namespace:
            check.namespace(request.namespace)
        check.refuse()
        now = time.monotonic()
        statuses = [run.status(now) for run in self._kept(request.namespace)]
        everywhere = [run.status(now) for run in self._kept("")]
        queued = everywhere.count(PrecomputeStatus.PENDING)
        return pb.GetStatsResponse(
            total_cached=len(statuses),
            active_tasks=statuses.count(PrecomputeStatus.IN_PROGRESS),
            status_counts={str(each): statuses.count(each) for each in set(statuses)},
            queued_jobs=queued,
            max_cached=_MAX_CACHED,
            ledger=self._accounting.message(request.namespace, now),
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


def _part(results: pb.GetResultsResponse, steps: Sequence[str]) -> pb.GetResultsResponse:
    """Return the results of these steps alone; with none, of all."""
    if not steps:
        return results
    return pb.GetResultsResponse.FromString(only_results(results.SerializeToString(), steps))


def _steps_of(run: FakeRun) -> set[str]:
    """All that its pipeline has: a game may leave out haiku's."""
    return set(NEEDS) if run.pipeline == BRIDGING_PIPELINE else set(run.steps)
