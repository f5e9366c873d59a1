"""Figures of the API: bytes, places and seconds, each met exactly. Time is virtual."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api import grpc_server, status
from headstart_service.api.adoption import Adoption
from headstart_service.api.call_limits import CallLimit, CallLimits
from headstart_service.api.deadline import Deadline
from headstart_service.api.dependencies import ApiRules, Dependencies
from headstart_service.api.dependencies import Call as RpcCall
from headstart_service.api.grpc_server import build_server
from headstart_service.api.health import Health
from headstart_service.api.methods.get_results import GetResults
from headstart_service.api.results.answer import Answer
from headstart_service.api.results.estimates import Estimates
from headstart_service.api.results.near_cache import NearCache
from headstart_service.api.results.outgoing import Outgoing
from headstart_service.api.results.recent_changes import Recent
from headstart_service.base.service_methods import SERVICE
from headstart_service.config.settings import Settings
from headstart_service.domain import Orphan, RunKey, RunSummary, Status
from headstart_service.domain.errors import (
    CapacityExhausted,
    InvalidRequest,
    RunNotFound,
    Violation,
)
from headstart_service.pipeline.registry import Registry
from tests.support.pipelines import CHAIN
from tests.support.run_store import FakeRunStore
from tests.support.virtual_time import loop_time, run_virtually
from tests.support.waiting import wait_until
from tests.unit.api.conftest import (
    KEY,
    PIPELINE,
    FakeReader,
    Methods,
    dependencies_of,
    methods_of,
    summary_of,
)
from tests.unit.api.test_api_adoption import WORDS, orphan
from tests.unit.api.test_api_estimates import PENDING, RUNNING, crew_of, run
from tests.unit.api.test_api_outgoing import Call

KIB = 1024
MINUTE = 60.0


# Adoption


def test_a_process_searches_for_orphans_every_two_seconds_whether_the_store_answers_or_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "headstart_service")

    async def look() -> FakeRunStore:
        store = FakeRunStore()
        adopting = asyncio.create_task(Adoption(store, Registry([WORDS])).run())
        await asyncio.sleep(4.5)
        store.away = True
        await asyncio.sleep(4.0)
        adopting.cancel()
        with suppress(asyncio.CancelledError):
            await adopting
        return store

    asked = [(call.at, *call.arguments) for call in run_virtually(look()).calls]
    every = [(2.0 * number, [WORDS.runs_class], 10.0, 1000) for number in range(5)]
    assert asked[:-1] == every
    assert [record.getMessage() for record in caplog.records] == ["no orphans: away"] * 2
    assert asked[-1][1:3] == ([], 0), "others adopt at once what this process has started"


async def test_an_orphan_whose_inputs_do_not_fit_is_logged_once_for_as_long_as_it_is_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "headstart_service")
    other = orphan("of other inputs", b'{"text": "sea"}')
    store = FakeRunStore()
    both = [other, orphan("raises", b'{"words": []}')]
    adoption = Adoption(store, Registry([WORDS]))
    for found in (both, both, [], [other]):
        store.orphaned = found
        await adoption.look()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert told[0].startswith("default/of other inputs stays queued: its inputs are of another")
    assert "inputs.words" in told[0]
    assert told[1].endswith(": IndexError")
    assert told[2] == told[0]
    assert store.asked("adopt") == []


@pytest.mark.parametrize("kept", [True, False])
async def test_an_adopted_run_is_logged_unless_another_process_was_faster(
    kept: bool,  # noqa: FBT001
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "headstart_service")
    store = FakeRunStore()
    store.orphaned = [orphan("left"), Orphan(RunKey("default", "x"), "run", "unknown", b"{}")]
    store.adopts = kept
    await Adoption(store, Registry([WORDS])).look()
    assert [key for key, _ in store.asked("adopt")] == ["left"]
    told = [record.getMessage() for record in caplog.records]
    assert told == (["default/left adopted: no process served its definition"] if kept else [])


# Estimates


def test_workers_are_asked_for_their_durations_every_five_seconds_at_most() -> None:
    async def ask() -> list[float]:
        crew = crew_of()
        estimates = Estimates(crew.workers, Registry([CHAIN]), 1)
        for _ in range(90):
            estimates.of(run(PENDING, PENDING, PENDING))
            await asyncio.sleep(0.125)
        await estimates.aclose()
        assert set(crew.asked("workers")) == {1000}
        return [round(call.at, 3) for call in crew.calls]

    assert run_virtually(ask()) == [0.0, 5.0, 10.0]


async def test_workers_that_cannot_be_asked_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "headstart_service")
    crew = crew_of()
    crew.away = True
    estimates = Estimates(crew.workers, Registry([CHAIN]), 1)
    await estimates.ask()
    assert [record.getMessage() for record in caplog.records] == ["no durations: away"]


def test_an_overdue_step_is_given_a_tenth_of_what_it_takes() -> None:
    async def estimate(had: int) -> tuple[int, int]:
        estimates = Estimates(crew_of().workers, Registry([CHAIN]), 1)
        estimates.refresh()
        await asyncio.sleep(1.0)
        return tuple(estimates.of(run(RUNNING, PENDING, PENDING, had=had))["one"])  # type: ignore[return-value]

    # It takes 2 s, and at most 3 s in nine runs of ten.
    assert run_virtually(estimate(1)) == (1_000_000, 2_000_000)
    assert run_virtually(estimate(9)) == (200_000, 300_000)


# Gates and health


def test_a_refused_call_may_come_back_after_half_a_second_to_one_and_a_half() -> None:
    for which, delay in ((0, 0.5), (1, 1.5)):
        limit = CallLimit("calls", 0, lambda *ends, which=which: ends[which])  # type: ignore[misc]
        with pytest.raises(CapacityExhausted, match=r"^0 calls are under way here$") as refused:
            limit.__enter__()
        assert refused.value.retry_after == delay


def test_the_places_are_those_of_the_settings() -> None:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    limits = CallLimits()
    told = (settings.max_waiters, settings.max_watches, settings.max_calls)
    assert tuple(limit.limit for limit in limits.by_kind.values()) == told
    assert limits.total == sum(told)


def test_2000_watches_of_health_are_held_of_which_one_connection_has_100() -> None:
    health = Health()
    with ExitStack() as stack:
        for number in range(2000):
            stack.enter_context(health.held(f"{number // 100}"))
        with pytest.raises(CapacityExhausted, match=r"^2000 streams of Health\.Watch"):
            health.held("new").__enter__()
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(health.held("one"))
        with pytest.raises(CapacityExhausted, match=r"^100 .* on this connection$") as refused:
            health.held("one").__enter__()
        assert refused.value.retry_after == 1
        with health.held("other"):
            pass
    assert health.connections == {}
    assert health.watches.inside == 0


async def test_a_question_for_health_has_a_kibibyte_at_most() -> None:
    [handler] = [
        Health().handlers().service(SimpleNamespace(method="/grpc.health.v1.Health/Check"))  # type: ignore[arg-type]
    ]
    aborted: list[grpc.StatusCode] = []

    class Ended(Exception):
        pass

    async def abort(code: grpc.StatusCode, details: str = "") -> None:
        aborted.append(code)
        raise Ended

    async def abort_with_status(told: grpc.Status) -> None:
        await abort(told.code)

    context = SimpleNamespace(abort=abort, abort_with_status=abort_with_status)
    for size in (KIB, KIB + 1):
        request = health_pb2.HealthCheckRequest(service="x" * (size - 3)).SerializeToString()
        assert len(request) == size
        with suppress(Ended):
            await handler.unary_unary(request, context)
    assert aborted[-1] is grpc.StatusCode.INVALID_ARGUMENT
    assert aborted[0] is not grpc.StatusCode.INVALID_ARGUMENT
    known = health_pb2.HealthCheckRequest(service=SERVICE).SerializeToString()
    assert await handler.unary_unary(known, context)


# What is kept and handed out


def answer(size: int, run: str = "run-1") -> Answer:
    return Answer(bytes(size), "test", 1, run, True, {}, 60.0)


def test_a_kept_answer_counts_with_a_kibibyte_beside_its_bytes() -> None:
    cache = NearCache(2 * (KIB + 100))
    cache.open()
    keys = [RunKey("default", f"{number}") for number in range(3)]
    for key in keys[:2]:
        cache.put(key, answer(100), cache.moment, time.monotonic())
    assert (len(cache), cache.size) == (2, 2 * (KIB + 100))
    cache.put(keys[2], answer(101), cache.moment, time.monotonic())
    assert (len(cache), cache.size) == (1, KIB + 101)
    assert cache.get(keys[2])
    cache.put(keys[0], answer(KIB + 200), cache.moment, time.monotonic())
    assert (len(cache), cache.size) == (1, 2 * (KIB + 100))
    cache.put(keys[1], answer(KIB + 201), cache.moment, time.monotonic())
    assert cache.get(keys[1]) is None
    assert cache.hits == 1


def test_a_read_of_another_run_outdates_what_was_read_before_it() -> None:
    recent = Recent()
    key = RunKey("default", "k")
    before = recent.now
    assert recent.note_read(key, "run-2", before)
    assert recent.since(key, before, "run-1")
    assert not recent.since(key, before, "run-2")
    assert not recent.note_read(key, "run-1", before), "which of both is later is not known"
    assert recent.note_read(key, "run-3", recent.now)


def test_the_last_4096_runs_that_were_dropped_are_reported_from_others() -> None:
    recent = Recent()
    keys = [RunKey("default", f"{number}") for number in range(4097)]
    for key in keys[:4096]:
        recent.note(key)
    assert not recent.since(RunKey("default", "other"), 0, "run-1")
    recent.note(keys[4096])
    assert recent.since(RunKey("default", "other"), 0, "run-1"), (
        "it may be the one that is forgotten"
    )
    assert not recent.since(RunKey("default", "other"), 1, "run-1")


@pytest.mark.parametrize(("left", "patience"), [(None, 5.0), (2.0, 1.8), (600.0, 5.0)])
def test_a_large_answer_waits_for_its_turn_for_five_seconds_of_its_callers_time(
    left: float | None, patience: float
) -> None:
    async def wait() -> tuple[float, CapacityExhausted]:
        outgoing = Outgoing()
        held: Any = Call("a")
        await outgoing.admit(bytes(outgoing.limit), held)
        began = loop_time()
        with pytest.raises(CapacityExhausted) as refused:
            await outgoing.admit(bytes(65 * KIB), Call("b", left))  # type: ignore[arg-type]
        held.end()
        assert outgoing.held == 0
        return loop_time() - began, refused.value

    took, refused = run_virtually(wait())
    assert took == pytest.approx(patience)
    assert refused.retry_after == 1.0
    assert f"{128 * KIB * KIB} bytes of large answers" in str(refused)


def test_an_answer_of_64_kib_is_not_counted_and_one_byte_more_is() -> None:
    async def admit(size: int) -> tuple[int, int]:
        outgoing = Outgoing()
        call: Any = Call()
        await outgoing.admit(bytes(size), call)
        async with outgoing.sending(bytes(size), call):
            return outgoing.held, len(call.callbacks)

    assert run_virtually(admit(64 * KIB)) == (0, 0)
    assert run_virtually(admit(64 * KIB + 1)) == (2 * (64 * KIB + 1), 1)


def test_two_answers_of_a_connection_fill_just_the_half_of_the_room() -> None:
    size = 100 * KIB

    async def admit(limit: int) -> bool:
        outgoing = Outgoing(limit)
        calls: list[Any] = [Call("a"), Call("a")]
        await outgoing.admit(bytes(size), calls[0])
        second = asyncio.create_task(outgoing.admit(bytes(size), calls[1]))
        await asyncio.sleep(1.0)
        admitted = second.done()
        calls[0].end()
        await second
        calls[1].end()
        assert outgoing.held == 0
        return admitted

    assert run_virtually(admit(4 * size))
    assert not run_virtually(admit(4 * size - 2))


@pytest.mark.parametrize(
    ("wait", "grace"), [(0.1, 0.01), (0.2, 0.01), (1.0, 0.05), (2.0, 0.1), (20.0, 0.1)]
)
def test_the_last_read_has_a_twentieth_of_the_wait_within_bounds(wait: float, grace: float) -> None:
    assert Deadline.of_call(wait).grace == pytest.approx(grace)


# What statuses hold


async def refusal(violations: Sequence[Violation]) -> list[Any]:
    made = status.status_of(InvalidRequest(violations))
    [packed] = made.details
    bad = error_details_pb2.BadRequest()
    packed.Unpack(bad)
    assert len(made.message.encode()) <= 1000
    return list(bad.field_violations)


@pytest.mark.parametrize("extra", [0, 1])
async def test_a_status_has_so_many_bytes_of_each_field_and_of_all(extra: int) -> None:
    [told] = await refusal([Violation("f" * (200 + extra), "d" * (300 + extra))])
    if extra:
        assert told.field == "f" * 197 + "…"
        assert told.description == "d" * 297 + "…"
    else:
        assert (told.field, told.description) == ("f" * 200, "d" * 300)
    # One of the largest takes 506 bytes of the 2,000.
    told = await refusal([Violation("f" * 200, "d" * 300)] * (3 + extra))
    assert len(told) == 3 + extra
    assert (told[-1].description == "and 1 more") is bool(extra)
    [one] = await refusal([Violation("é" * 101, "")])
    assert one.field == "é" * 98 + "…", "no character is cut in two"


async def test_2000_bytes_of_violations_are_told_and_none_beyond() -> None:
    def size(length: int) -> int:
        made = error_details_pb2.BadRequest.FieldViolation(field="f", description="d" * length)
        return made.ByteSize()

    rest = 2000 - 6 * size(300)
    last = next(length for length in range(300) if size(length) == rest)
    for extra in (0, 1):
        lengths = [*[300] * 6, last + extra]
        told = await refusal([Violation("f", "d" * length) for length in lengths])
        assert (told[-1].description == "and 1 more") is bool(extra)


async def test_a_message_of_1000_bytes_is_whole_and_a_longer_one_is_cut() -> None:
    for extra in (0, 1):
        made = status.status_of(CapacityExhausted("m" * (1000 + extra), 1.0))
        assert made.message == ("m" * 997 + "…" if extra else "m" * 1000)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_end_of_every_call_is_reported_with_its_code(stream: bool) -> None:  # noqa: FBT001
    class Aborted(grpc.aio.AbortError):
        pass

    ended: list[tuple[str, bool]] = []
    raised: BaseException | None = None

    async def unary(_: Any, __: Any) -> bytes:
        if raised is not None:
            raise raised
        return b"x"

    async def streamed(_: Any, __: Any) -> Any:
        yield await unary(_, __)

    async def abort_with_status(told: Any) -> None:
        raise Aborted(told)

    context: Any = SimpleNamespace(abort_with_status=abort_with_status)

    def note(code: str, seconds: float) -> None:
        ended.append((code, 0.0 <= seconds < 60.0))

    async def called() -> None:
        if stream:
            guarded = status.guarded_stream(streamed, nullcontext(), note)
            assert [response async for response in guarded(None, context)] == [b"x"]
        else:
            assert await status.guarded(unary, nullcontext(), note)(None, context) == b"x"

    await called()
    for error, kind in (
        (RunNotFound("n", "k"), Aborted),
        (ValueError("x"), Aborted),
        (asyncio.CancelledError(), asyncio.CancelledError),
        (Aborted(), Aborted),
    ):
        raised = error
        with pytest.raises(kind):
            await called()
    codes = ["OK", "NOT_FOUND", "INTERNAL", "CANCELLED", "CANCELLED"]
    assert ended == [(code, True) for code in codes]


# The server


def test_the_server_is_made_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}

    class Made:
        def add_generic_rpc_handlers(self, handlers: Any) -> None:
            made.setdefault("handlers", []).extend(handlers)

    def build(*, options: Any) -> Any:
        made["options"] = list(options)
        return Made()

    monkeypatch.setattr(grpc.aio, "server", build)
    monkeypatch.setattr(grpc_server, "share_of_files", lambda share: 700 // share)
    build_server(
        dependencies_of(), Health(), CallLimits(waiters=5, watches=3, calls=2), reflects=False
    )
    assert Counter(made["options"]) == Counter(
        {
            ("grpc.so_reuseport", 0): 1,
            ("grpc.server.max_pending_requests", 20_000): 1,
            ("grpc.server.max_pending_requests_hard_limit", 40_000): 1,
            ("grpc.max_receive_message_length", 4 * KIB * KIB): 1,
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000): 1,
            ("grpc.keepalive_permit_without_calls", 1): 1,
            ("grpc.server_handshake_timeout_ms", 10_000): 1,
            ("grpc.max_allowed_incoming_connections", 350): 1,
            ("grpc.max_concurrent_streams", 1010): 1,
        }
    )
    assert len(made["handlers"]) == 2


async def test_one_stream_of_reflection_too_many_is_refused() -> None:
    reflection = grpc_server.Reflection((SERVICE,), None)
    inside = 0

    async def forever() -> Any:
        nonlocal inside
        inside += 1
        await asyncio.Event().wait()
        yield

    class Refused(Exception):
        pass

    async def abort_with_status(told: Any) -> None:
        assert told.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        raise Refused

    context: Any = SimpleNamespace(abort_with_status=abort_with_status)

    async def reflect() -> None:
        async for _ in reflection.ServerReflectionInfo(forever(), context):
            pass

    streams = [asyncio.create_task(reflect()) for _ in range(100)]
    await wait_until(lambda: inside == 100)
    with pytest.raises(Refused):
        await asyncio.wait_for(reflect(), 10)
    streams[0].cancel()
    await asyncio.wait({streams[0]})
    streams[0] = asyncio.create_task(reflect())
    await wait_until(lambda: inside == 101)
    for stream in streams:
        stream.cancel()
    await asyncio.wait(streams)


def store_of(runs: int) -> FakeRunStore:
    """A store with so many runs."""
    return FakeRunStore(
        *(
            RunSummary(RunKey("default", f"k{n}"), "test", 1, Status.PENDING, 1, 0, 0, 9, "")
            for n in range(runs)
        )
    )


@pytest.mark.parametrize(("runs", "more"), [(2, False), (3, True)])
async def test_a_page_has_a_token_where_there_are_more_runs(runs: int, more: bool) -> None:  # noqa: FBT001
    store = store_of(runs)
    servicer = methods_of(store=store)
    context: Any = RpcCall()
    page = await servicer.list_precomputes(pb.ListPrecomputesRequest(page_size=2), context)
    assert [asked[2:] for asked in store.asked("page")] == [(None, 2, "", "")]
    assert [run.key for run in page.precomputes] == ["k0", "k1"]
    assert bool(page.next_page_token) is more
    if more:
        request = pb.ListPrecomputesRequest(page_token=page.next_page_token)
        await servicer.list_precomputes(request, context)
        assert store.asked("page")[-1][2] == RunKey("default", "k1")


async def test_a_page_is_limited_to_a_prefix_and_a_pipeline() -> None:
    store = store_of(12)
    servicer = methods_of(store=store)
    context: Any = RpcCall()
    request = pb.ListPrecomputesRequest(namespace="default", key_prefix="k1", pipeline="test")
    page = await servicer.list_precomputes(request, context)
    assert [run.key for run in page.precomputes] == ["k1", "k10", "k11"]
    request.pipeline = "other"
    assert not (await servicer.list_precomputes(request, context)).precomputes


@pytest.mark.parametrize(
    ("request_", "field", "rule"),
    [
        ({"key_prefix": "k"}, "key_prefix", "needs a namespace"),
        (
            {"namespace": "n", "key_prefix": "é" * 129},
            "key_prefix",
            "must be at most 256 bytes, is 258",
        ),
        (
            {"namespace": "n", "key_prefix": "a\n"},
            "key_prefix",
            "must not contain control characters",
        ),
        ({"pipeline": "a b"}, "pipeline", "is no name that a pipeline can have"),
    ],
)
async def test_a_wrong_filter_of_a_list_is_refused(
    request_: dict[str, Any], field: str, rule: str
) -> None:
    context: Any = RpcCall()
    with pytest.raises(InvalidRequest) as refused:
        await methods_of(store=store_of(1)).list_precomputes(
            pb.ListPrecomputesRequest(**request_), context
        )
    assert refused.value.violations == (Violation(field, rule),)


async def test_a_report_for_a_pipeline_that_is_not_served_here_names_its_step() -> None:
    rules = ApiRules(result_ttl=600.0, max_records=3)
    store = FakeRunStore(summary_of())
    servicer = Methods(Dependencies(store, Registry([CHAIN]), FakeReader(), rules))  # type: ignore[arg-type]
    request = pb.ReportStepRequest(
        key=KEY.key, revision=1, step="one", artifact=pb.Artifact(data=b"x")
    )
    with pytest.raises(InvalidRequest) as refused:
        await servicer.report_step(request, RpcCall())  # type: ignore[arg-type]
    assert [violation.field for violation in refused.value.violations] == ["step"]


@pytest.mark.parametrize(
    "fields",
    [
        {"required_steps": ["one"]},
        {"min_revision": 1},
        {"wait": {"seconds": 600}},
        {"wait": {"seconds": -1}},
        {"wait": {"nanos": -1}},
        {"wait": {"seconds": 599, "nanos": 10**9}},
    ],
    ids=str,
)
def test_what_needs_a_second_read_is_not_answered_at_once(fields: dict[str, Any]) -> None:
    asked: list[RunKey] = []
    ready = SimpleNamespace(ready=asked.append)
    rules = ApiRules(result_ttl=600.0, max_records=3)
    servicer = GetResults(Dependencies(None, Registry([PIPELINE]), ready, rules))  # type: ignore[arg-type]
    request = pb.GetResultsRequest(key="k", **fields)
    servicer.ready(request)
    assert asked == []
    request = pb.GetResultsRequest(key="k")
    request.wait.FromSeconds(599)
    servicer.ready(request)
    assert asked == [RunKey("default", "k")]
