"""Every field of the API's replies, what its methods ask of the store, and what they log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api import grpc_server, messages, reported_step, request_rules
from headstart_service.api.call_limits import CallLimits
from headstart_service.api.call_observer import CallObservers
from headstart_service.api.dependencies import ApiRules, Call, Dependencies
from headstart_service.api.methods import list_precomputes
from headstart_service.api.page_token import page_token
from headstart_service.api.results.estimates import Estimates
from headstart_service.api.results.outgoing import Outgoing
from headstart_service.auth.grants import (
    Grant,
    Grants,
    Verb,
    digest_of,
)
from headstart_service.domain import (
    Cancelled,
    FailureReason,
    Fate,
    Hidden,
    Lack,
    Ledger,
    Outcome,
    PoolStats,
    ProviderState,
    Report,
    RunKey,
    RunSummary,
    Started,
    Stats,
    Status,
    StepState,
    WaitsFor,
    Work,
)
from headstart_service.domain.errors import (
    InvalidRequest,
    RunNotFound,
    Violation,
)
from headstart_service.domain.log_fields import FIELDS
from headstart_service.pipeline.registry import Registry
from tests.support.pipelines import CHAIN
from tests.support.run_store import FakeRunStore
from tests.unit.api.conftest import KEY, PIPELINE, Api, FakeReader, Methods
from tests.unit.api.test_api_estimates import COMPLETED, PENDING, RUNNING, crew_of, run

DAY = 24 * 3600.0
SUMMARY = RunSummary(
    KEY, "test", 3, Status.PENDING, 1_000_001, 2_000_002, 3_000_003, 4_000_004, "why"
)


class Seen(CallObservers):
    """Notes the starts that it is told of."""

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[Outcome] = []

    def started(self, outcome: Outcome) -> None:
        self.starts.append(outcome)


class Served:
    """A servicer on such a store."""

    def __init__(self, **rules: Any) -> None:
        self.store, self.reader, self.seen = FakeRunStore(SUMMARY), FakeReader(), Seen()
        self.store.run, self.store.states = "run-3", {KEY: {"one": StepState.RUNNING}}
        self.store.on_start = Started(Outcome.REPLACED, Status.PENDING, 7)
        registry = Registry([PIPELINE, CHAIN])
        given = ApiRules(**{"result_ttl": 600.0, "max_records": 9} | rules)
        self.servicer = Methods(
            Dependencies(
                self.store,  # type: ignore[arg-type]
                registry,
                self.reader,  # type: ignore[arg-type]
                given,
                self.seen,
            )
        )


NOBODY: Any = Call()


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (record.getMessage(), record.__dict__[FIELDS])
        for record in caplog.records
        if record.levelno == logging.INFO
    ]


# Starting, cancelling, reporting


@pytest.mark.parametrize(
    ("ttl", "need", "asked", "needed_in"),
    [
        (None, None, 600.0, None),
        (None, 30.0, 630.0, 30.0),
        (60.0, 30.0, 60.0, 30.0),
        (7 * DAY, 7 * DAY, 7 * DAY, 7 * DAY),
        (0.001, 0.0, 0.001, 0.0),
    ],
)
@pytest.mark.parametrize("log_inputs", [True, False])
async def test_a_start_stores_returns_and_logs_all_of_it(
    ttl: float | None,
    need: float | None,
    asked: float,
    needed_in: float | None,
    log_inputs: bool,  # noqa: FBT001
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "headstart_service")
    served = Served(log_inputs=log_inputs)
    request = pb.StartPrecomputeRequest(
        key="game-1",
        custom=pb.CustomSpec(pipeline="test"),
        restart=True,
        request_id="start-1",
    )
    if ttl is not None:
        request.ttl.FromTimedelta(timedelta(seconds=ttl))
    if need is not None:
        request.expected_need_in.FromTimedelta(timedelta(seconds=need))
    answer = await served.servicer.start_precompute(request, NOBODY)
    more = {"restart": True, "request_id": "start-1", "needed_in": needed_in}
    [(key, plan, kept, details)] = served.store.asked("start")
    assert (key, plan.pipeline, kept, details) == (KEY, "test", pytest.approx(asked), more)
    assert answer == pb.StartPrecomputeResponse(
        namespace="default",
        key="game-1",
        outcome=pb.START_OUTCOME_REPLACED,
        status=pb.PRECOMPUTE_STATUS_PENDING,
        revision=7,
    )
    assert (served.reader.outdated, served.seen.starts) == (
        ["default/game-1"],
        [Outcome.REPLACED],
    )
    [(text, fields)] = told(caplog)
    assert text == "default/game-1 revision 7 replaced"
    about = {"namespace": "default", "key": "game-1", "revision": 7, "pipeline": "test"}
    inputs = {"inputs": "{}"} if log_inputs else {}
    what = {"event": "run.replaced", "method": "StartPrecompute", "outcome": "replaced"}
    assert fields == what | about | inputs


@pytest.mark.parametrize(
    ("field", "seconds", "rule"),
    [
        ("ttl", 0.0009, "must be 0.001 to 604800 seconds, is 0.0009"),
        ("ttl", 7 * DAY + 1, "must be 0.001 to 604800 seconds, is 604801"),
        ("ttl", 7 * DAY + 1e-6, "must be 0.001 to 604800 seconds, is 604800.000001"),
        ("expected_need_in", 7 * DAY + 1, "must be 0 to 604800 seconds, is 604801"),
        ("expected_need_in", -1.0, "must be 0 to 604800 seconds, is -1"),
    ],
)
async def test_a_duration_beyond_its_bounds_names_them(
    field: str, seconds: float, rule: str
) -> None:
    request = pb.StartPrecomputeRequest(key="k", custom=pb.CustomSpec(pipeline="test"))
    getattr(request, field).FromNanoseconds(round(seconds * 1e9))
    with pytest.raises(InvalidRequest) as refused:
        await Served().servicer.start_precompute(request, NOBODY)
    assert list(refused.value.violations) == [Violation(field, rule)]


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_cancel_returns_what_became_of_it_and_logs_what_it_has_done(
    cancelled: bool,  # noqa: FBT001
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "headstart_service")
    served = Served()
    served.store.on_cancel = Cancelled(cancelled=cancelled, status=Status.FAILED, revision=5)
    request = pb.CancelPrecomputeRequest(namespace="shop", key="k", revision=5)
    answer = await served.servicer.cancel_precompute(request, NOBODY)
    assert answer == pb.CancelPrecomputeResponse(
        namespace="shop",
        key="k",
        cancelled=cancelled,
        status=pb.PRECOMPUTE_STATUS_FAILED,
        revision=5,
    )
    cancels = [(RunKey("shop", "k"), 5)]
    assert (served.store.asked("cancel"), served.reader.outdated) == (cancels, ["shop/k"])
    outcome = "cancelled" if cancelled else "unchanged"
    fields = {"event": f"run.{outcome}", "namespace": "shop", "key": "k", "revision": 5}
    fields |= {"method": "CancelPrecompute", "outcome": outcome}
    assert told(caplog) == [(f"shop/k revision 5 {outcome}", fields)]


def report(created_us: int | None = None, **fields: Any) -> pb.ReportStepRequest:
    request = pb.ReportStepRequest(
        **{"key": KEY.key, "revision": 3, "step": "one"} | fields,
        artifact=pb.Artifact(json="1"),
    )
    if created_us is not None:
        request.created_at.FromMicroseconds(created_us)
    return request


@pytest.mark.parametrize("created_us", [None, SUMMARY.created_us])
@pytest.mark.parametrize("accepted", [True, False])
async def test_a_report_is_kept_for_the_run_that_it_is_of(
    created_us: int | None,
    accepted: bool,  # noqa: FBT001
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "headstart_service")
    served = Served()
    served.store.on_report = Report(accepted=accepted, state=StepState.COMPLETED)
    answer = await served.servicer.report_step(report(created_us), NOBODY)
    assert answer == pb.ReportStepResponse(accepted=accepted, state=pb.STEP_STATE_COMPLETED)
    assert served.store.asked("report") == [(KEY, "run-3", 3, PIPELINE.runs_class, (), "one")]
    assert served.reader.outdated == ([str(KEY)] if accepted else [])
    fields = {"namespace": "default", "key": KEY.key, "revision": 3, "step": "one"}
    outcome = "reported" if accepted else "unchanged"
    fields |= {"event": f"step.{outcome}", "method": "ReportStep", "outcome": outcome}
    assert told(caplog) == [(f"{KEY} one {outcome} by a caller", fields)]


@pytest.mark.parametrize("created_us", [SUMMARY.created_us + 1, SUMMARY.created_us - 1])
async def test_a_report_of_an_earlier_run_changes_nothing_and_returns_how_the_step_is(
    created_us: int,
) -> None:
    served = Served()
    answer = await served.servicer.report_step(report(created_us), NOBODY)
    assert answer == pb.ReportStepResponse(accepted=False, state=pb.STEP_STATE_RUNNING)
    assert (served.store.asked("report"), served.reader.outdated) == ([], [])
    other = await served.servicer.report_step(report(created_us, step="two"), NOBODY)
    assert other.state == pb.STEP_STATE_UNSPECIFIED


def test_a_reported_result_has_a_mebibyte_at_most() -> None:
    def of_size(size: int) -> pb.ReportStepRequest:
        request = pb.ReportStepRequest(revision=1, step="one")
        request.artifact.data = bytes(size)
        request.artifact.data = bytes(2 * size - request.artifact.ByteSize())
        assert request.artifact.ByteSize() == size
        return request

    assert reported_step.violations_of(of_size(1 << 20)) == []
    [violation] = reported_step.violations_of(of_size((1 << 20) + 1))
    assert violation == Violation("artifact", "must be at most 1048576 bytes, is 1048577")
    wrong = reported_step.violations_of(pb.ReportStepRequest(revision=0))
    assert [each.field for each in wrong] == ["revision", "step", "result"]


# Counts, lists and pipelines


@pytest.mark.parametrize(
    ("separate", "namespace", "queued"),
    [(False, "shop", 11), (True, "shop", 38), (True, "", 11), (False, "", 11)],
)
async def test_the_counts_have_every_field(
    separate: bool,  # noqa: FBT001
    namespace: str,
    queued: int,
) -> None:
    served = Served(separate=separate, max_records=77)
    work = Work(runs=1, steps=2, compute=3.000004, cpu=4.5, llm_tokens=6)
    served.store.stats_of[namespace] = Stats(
        counts={Status.PENDING: 4, Status.IN_PROGRESS: 2, Status.FAILED: 1},
        queued_jobs=11,
        ledger=Ledger(
            since_us=1_500_000,
            starts=21,
            joined=22,
            reused=23,
            open=24,
            hidden=25.5,
            waited=26.5,
            fates={Fate.USED_READY: work, Fate.EXPIRED: Work()},
            pipelines={"test": Hidden(runs=3, seconds=1.25)},
            llm_calls=27,
            llm_cached_tokens=28,
        ),
        unserved={"test": 5},
        pools={"gpu": PoolStats(queued=31, running=32, workers=33, oldest_wait=3.25)},
        pending_step_runs=34,
        running_step_runs=35,
        providers=[
            ProviderState(
                name="a/m",
                paused=1.5,
                opened=2,
                ending="overloaded",
                waits_for=WaitsFor.TOKENS,
                rate=9.5,
            ),
            ProviderState(name="b", waits_for=WaitsFor.PAUSE),
        ],
        over_budget={"shop": 500, "quiz": 600},
    )
    stats = await served.servicer.get_stats(pb.GetStatsRequest(namespace=namespace), NOBODY)
    assert served.store.asked("stats") == [namespace]
    plain = json_format.MessageToDict(
        stats, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert plain == {
        "total_cached": "7",
        "active_tasks": "2",
        "status_counts": {"pending": "4", "in_progress": "2", "failed": "1"},
        "queued_jobs": f"{queued}",
        "max_cached": "77",
        "unserved": {"test": "5"},
        "pools": {}
        if separate and namespace
        else {
            "default": {"queued": "0", "running": "0", "workers": "0"},
            "gpu": {"queued": "31", "running": "32", "workers": "33", "oldest_wait": "3.250s"},
        },
        "pending_step_runs": "34",
        "running_step_runs": "35",
        "providers": [
            {
                "name": "a/m",
                "paused": "1.500s",
                "failing": True,
                "last_error": "overloaded",
                "waits_for": "PROVIDER_LIMIT_TOKENS",
                "calls_a_second": 9.5,
            },
            {
                "name": "b",
                "failing": False,
                "last_error": "",
                "waits_for": "PROVIDER_LIMIT_UNSPECIFIED",
                "calls_a_second": 0.0,
            },
        ],
        # With tokens, a namespace learns nothing of the others.
        "over_budget": {"shop": "500"} | ({} if separate and namespace else {"quiz": "600"}),
        "ledger": {
            "llm_calls": "27",
            "llm_cached_tokens": "28",
            "since": "1970-01-01T00:00:01.500Z",
            "starts": "21",
            "joined": "22",
            "reused": "23",
            "unsettled": "24",
            "hidden": "25.500s",
            "waited": "26.500s",
            "fates": [
                {
                    "fate": "FATE_USED_READY",
                    "runs": "1",
                    "steps": "2",
                    "compute": "3.000004s",
                    "cpu": "4.500s",
                    "llm_tokens": "6",
                },
                *(
                    {
                        "fate": f"FATE_{fate.name}",
                        "runs": "0",
                        "steps": "0",
                        "compute": "0s",
                        "cpu": "0s",
                        "llm_tokens": "0",
                    }
                    for fate in list(Fate)[1:]
                ),
            ],
            "pipelines": {"test": {"runs": "3", "hidden": "1.250s"}},
        },
    }


@pytest.mark.parametrize(
    ("lacks", "reason"),
    [
        (None, pb.PENDING_REASON_UNSPECIFIED),
        (Lack.WORKER, pb.PENDING_REASON_NO_WORKER),
        (Lack.POOL, pb.PENDING_REASON_NO_WORKER_FOR_POOL),
        (Lack.PIPELINE, pb.PENDING_REASON_NO_WORKER_FOR_PIPELINE),
        (Lack.VERSION, pb.PENDING_REASON_NO_WORKER_FOR_VERSION),
    ],
)
def test_a_summary_has_every_field(lacks: Lack | None, reason: int) -> None:
    values = {name: getattr(SUMMARY, name) for name in SUMMARY.__slots__} | {"lacks": lacks}
    values["failure_reason"] = FailureReason.SHED
    message = pb.GetResultsResponse()
    messages.fill_summary(message, RunSummary(**values))
    assert (message.namespace, message.key, message.pipeline) == ("default", KEY.key, "test")
    assert (message.revision, message.error, message.pending_reason) == (3, "why", reason)
    assert message.status == pb.PRECOMPUTE_STATUS_PENDING
    assert message.failure_reason == pb.FAILURE_REASON_SHED
    times = [message.created_at, message.started_at, message.completed_at, message.expires_at]
    micros = [1_000_001, 2_000_002, 3_000_003, 4_000_004]
    assert [time.ToMicroseconds() for time in times] == micros


def test_a_page_holds_1000_runs_and_100_unless_asked() -> None:
    wrong: list[Violation] = []
    assert [request_rules.page_size(size, wrong) for size in (0, 1, 1000)] == [100, 1, 1000]
    assert wrong == []
    for size in (-1, 1001):
        request_rules.page_size(size, wrong)
    rule = "must be 1 to 1000, or 0 for the default, is "
    assert wrong == [Violation("page_size", f"{rule}{size}") for size in (-1, 1001)]


def test_a_list_in_a_request_has_1000_entries_at_most() -> None:
    wrong: list[Violation] = []
    assert list_precomputes.statuses([pb.PRECOMPUTE_STATUS_FAILED] * 1000, wrong) == [Status.FAILED]
    assert wrong == []
    assert list_precomputes.statuses([pb.PRECOMPUTE_STATUS_FAILED] * 1001, wrong) == []
    assert wrong == [Violation("statuses", "must be at most 1000, are 1001")]
    assert request_rules.repeated_violations("x", range(1000)) == []


async def test_pipelines_are_listed_by_name_page_by_page() -> None:
    servicer, request = Served().servicer, pb.ListPipelinesRequest()
    listed = await servicer.list_pipelines(request, NOBODY)
    assert [pipeline.name for pipeline in listed.pipelines] == ["chain", "test"]
    assert listed.next_page_token == ""
    request.page_size = 1
    names = []
    while not names or request.page_token:
        page = await servicer.list_pipelines(request, NOBODY)
        names.append([pipeline.name for pipeline in page.pipelines])
        request.page_token = page.next_page_token
    assert names == [["chain"], ["test"]]


@pytest.mark.parametrize("token", ["!", "bm8=", page_token(RunKey("n", "k"), 1), "/////w=="])
async def test_a_page_of_pipelines_refuses_a_token_of_something_else(token: str) -> None:
    request = pb.ListPipelinesRequest(page_size=-1, page_token=token)
    with pytest.raises(InvalidRequest) as refused:
        await Served().servicer.list_pipelines(request, NOBODY)
    assert refused.value.violations == (
        Violation("page_size", "must be 1 to 1000, or 0 for the default, is -1"),
        Violation("page_token", "is not a next_page_token of this method"),
    )


async def asked_when_ready(data: bytes, grants: Grants | None = None) -> list[str]:
    """The keys that GetResults looks for in memory, when it gets this request."""
    asked: list[str] = []

    async def abort(_: Any) -> None:
        raise grpc.aio.AbortError

    reader: Any = SimpleNamespace(ready=lambda key: asked.append(key.key))
    rules = ApiRules(result_ttl=600.0, max_records=9)
    api = Dependencies(FakeRunStore(SUMMARY), Registry([]), reader, rules)  # type: ignore[arg-type]
    handler: Any = grpc_server.rpc_handlers(api, CallLimits(), grants, Outgoing())["GetResults"]
    context = SimpleNamespace(
        time_remaining=lambda: None,
        abort_with_status=abort,
        peer=lambda: "ipv4:10.0.0.1:9",
        invocation_metadata=lambda: (("authorization", "Bearer t"),),
    )
    # What is not ready gets no further here: its key is invalid, or it is refused.
    with pytest.raises(grpc.aio.AbortError):
        await handler.unary_unary(data, context)
    return asked


@pytest.mark.parametrize("size", [32 * 1024, 32 * 1024 + 1])
async def test_a_request_of_32_kib_is_answered_at_once_and_a_larger_one_parsed_once(
    size: int,
) -> None:
    data = pb.GetResultsRequest(key="k" * (size - 4)).SerializeToString()
    data = pb.GetResultsRequest(key="k" * (2 * size - 4 - len(data))).SerializeToString()
    assert len(data) == size
    assert len(await asked_when_ready(data)) == (size == 32 * 1024)


@pytest.mark.parametrize(
    ("verbs", "namespaces", "ready"),
    [
        ({Verb.READ}, {"default"}, True),
        ({Verb.WRITE}, {"default"}, False),
        ({Verb.READ}, {"shop"}, False),
        (None, None, False),
    ],
)
async def test_what_is_ready_is_for_callers_that_may_read_it(
    verbs: set[Verb] | None,
    namespaces: set[str] | None,
    ready: bool,  # noqa: FBT001
) -> None:
    grants = {}
    if verbs is not None and namespaces is not None:
        grants[digest_of("t")] = Grant("ops", frozenset(namespaces), frozenset(verbs))
    key = "k" * 300
    data = pb.GetResultsRequest(key=key).SerializeToString()
    assert await asked_when_ready(data, Grants(grants)) == ([key] if ready else [])
    assert await asked_when_ready(b"\xff") == []


# Waiting


async def test_an_error_of_a_shared_read_is_given_to_all_and_read_once(api: Api) -> None:
    api.store.snapshot = None
    api.store.gate.clear()
    waiters = [api.get() for _ in range(4)]
    await api.parked(4)
    api.store.gate.set()
    for waiter in waiters:
        with pytest.raises(RunNotFound):
            await waiter
    assert api.store.reads == 2, "the first caller's own look, and one for all others"


async def test_a_reader_counts_calls_that_the_near_cache_could_not_answer(api: Api) -> None:
    api.store.now(Status.COMPLETED, one=COMPLETED, two=COMPLETED, three=COMPLETED)
    for _ in range(3):
        await api.get()
    assert (api.cache.misses, api.cache.hits) == (1, 2)
    with pytest.raises(InvalidRequest) as refused:
        await api.get("one", "four", "two", "five")
    rule = "must be one of: one, three, two; is '{}'"
    assert list(refused.value.violations) == [
        Violation("required_steps[1]", rule.format("four")),
        Violation("required_steps[3]", rule.format("five")),
    ]


async def test_what_is_known_of_steps_outlives_their_workers() -> None:
    answers = [await crew_of().workers(9), []]

    async def workers(limit: int) -> Sequence[Any]:
        return answers.pop(0)

    estimates = Estimates(workers, Registry([CHAIN]), 1)
    estimates.refresh()
    await asyncio.sleep(0.01)
    running = run(RUNNING, PENDING, PENDING, had=1)
    known = estimates.of(running)
    assert known
    await estimates.ask()
    assert estimates.of(running) == known
    assert estimates.of(run(PENDING, PENDING, PENDING, ahead=0)) == {}
    assert estimates.expected() == {"chain": 70_000_000}
