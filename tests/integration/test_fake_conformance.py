"""`headstart.testing.fake_server` does what the service does: the same assertions hold of both.

`idle` has no worker, so that runs get on by reports alone; `busy` computes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from headstart import (
    InvalidRequest,
    NotFound,
    PrecomputeClient,
    PrecomputeStatus,
    Results,
    StepOrigin,
    StepState,
)
from headstart.testing import FakeServer, fake_server
from headstart.v1 import precompute_pb2 as pb
from tests.integration.conftest import grpc_address
from tests.support.pipelines import REFERENCES
from tests.support.processes import Service, run_headstart, stub
from tests.support.waiting import wait_until

NEVER = 3600.0
LONG = 30.0
DAY = 86_400.0
COMPLETED, RUNNING, PENDING = StepState.COMPLETED, StepState.RUNNING, StepState.PENDING
NUMBERS = count()
GATED = {"gated": ["first"]}


def _probe(inputs: Any) -> dict[str, Any]:
    return {"first": inputs["value"] + 1, "gated": (inputs["value"] + 1) * 10}


@contextmanager
def _fake() -> Iterator[FakeServer]:
    with fake_server() as server:
        server.script({"one": 0, "two": 0, "three": 0}, pipeline="chain")
        yield server


@contextmanager
def _real(directory: Path, *flags: str, **environment: str) -> Iterator[str]:
    ports = {"HEADSTART_GRPC_PORT": "0", "HEADSTART_HTTP_PORT": "0", "HEADSTART_LEASE": "1"}
    where = {"HEADSTART_DATA_DIR": str(directory), "HEADSTART_PIPELINES": REFERENCES}
    process = run_headstart("serve", *flags, **ports, **where, **environment)
    try:
        yield grpc_address(process)
    finally:
        process.stop()


@pytest.fixture(scope="module")
def idle_fake() -> Iterator[str]:
    with _fake() as server:
        server.script(queued=NEVER, pipeline="bridging")
        server.script(_probe, pipeline="probe", queued=NEVER, needs=GATED)
        # Pipelines are known by their scripts.
        server.script({"nothing": 0}, pipeline="noop", queued=NEVER)
        server.script({"first": 0, "witness": 0}, pipeline="witness")
        server.script({"first": 0, "mortal": 0}, pipeline="mortal")
        yield server.address


@pytest.fixture(scope="module")
def idle_real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with _real(tmp_path_factory.mktemp("idle"), "--no-worker") as address:
        yield address


@pytest.fixture(scope="module", params=["fake", "real"])
def idle(request: pytest.FixtureRequest) -> str:
    """The address of a service that computes nothing."""
    address: str = request.getfixturevalue(f"idle_{request.param}")
    return address


@pytest.fixture(scope="module", params=["fake", "real"])
def busy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service whose steps `gated` end for the key "known" alone."""
    with ExitStack() as stack:
        if request.param == "fake":
            server = stack.enter_context(_fake())
            server.script(lambda inputs: {"nothing": inputs["value"]}, pipeline="noop")
            waits = {"delays": {"gated": NEVER}, "needs": GATED}
            server.script(_probe, pipeline="probe", estimates={"gated": (1.0, 2.0)}, **waits)
            server.script(_probe, pipeline="probe", key="known")
            yield server.address
        else:
            directory = tmp_path_factory.mktemp("busy")
            yield stack.enter_context(_real(directory, HEADSTART_BRIDGING="false"))


@dataclass
class Side:
    """One of both, in a namespace of the test's own."""

    namespace: str
    client: PrecomputeClient
    stub: Service

    async def report(
        self,
        key: str,
        step: str,
        value: Any = 7,
        revision: int = 1,
        elapsed: float | None = None,
        created_at: datetime | None = None,
    ) -> tuple[bool, int]:
        request = pb.ReportStepRequest(
            namespace=self.namespace, key=key, revision=revision, step=step
        )
        if isinstance(value, pb.BridgingResults):
            request.bridging.CopyFrom(value)
        else:
            request.artifact.json.number_value = value
        if elapsed is not None:
            request.elapsed.FromNanoseconds(round(elapsed * 1e9))
        if created_at is not None:
            request.created_at.FromDatetime(created_at)
        answer = await self.stub.ReportStep(request, timeout=10)
        return answer.accepted, answer.state

    async def reaches(self, key: str, **wanted: str) -> None:
        """Return when the run's status, or states of steps, are as wanted."""

        async def reached() -> bool:
            seen = await self.client.get_status(key)
            return all(
                value == (seen.status if name == "status" else seen.steps[name])
                for name, value in wanted.items()
            )

        await wait_until(reached)


@contextmanager
def _own_namespace() -> Iterator[str]:
    yield f"test-{next(NUMBERS)}"


async def _side(address: str) -> AsyncIterator[Side]:
    namespace = f"test-{next(NUMBERS)}"
    async with PrecomputeClient(address, namespace=namespace) as client, stub(address) as service:
        yield Side(namespace, client, service)


@pytest.fixture
async def waiting(idle: str) -> AsyncIterator[Side]:
    """A service where runs wait for a worker that never comes."""
    async for side in _side(idle):
        yield side


@pytest.fixture
async def working(busy: str) -> AsyncIterator[Side]:
    """A service that computes."""
    async for side in _side(busy):
        yield side


def _inputs(directory: Path, value: int = 1) -> dict[str, Any]:
    return {"directory": str(directory), "value": value}


def _states(results: Results) -> dict[str, StepState]:
    return {name: report.state for name, report in results.steps.items()}


# Reports


async def test_the_first_result_of_a_step_is_kept_if_what_it_needs_is(
    waiting: Side, tmp_path: Path
):
    await waiting.client.start("k", "probe", _inputs(tmp_path))
    assert await waiting.report("k", "gated") == (False, pb.STEP_STATE_PENDING)
    assert await waiting.report("k", "first", elapsed=1.5) == (True, pb.STEP_STATE_COMPLETED)
    assert await waiting.report("k", "first", 8) == (False, pb.STEP_STATE_COMPLETED)
    partial = await waiting.client.get_results("k")
    assert _states(partial) == {"first": COMPLETED, "gated": PENDING}
    assert await waiting.report("k", "gated", 9) == (True, pb.STEP_STATE_COMPLETED)
    results = await waiting.client.get_results("k", wait=LONG)
    assert results.custom == {"first": 7, "gated": 9}
    # Only a worker ends a run.
    assert (results.status, results.completed_at) == (PrecomputeStatus.PENDING, None)
    told = {
        name: (report.origin, report.attempts, report.elapsed, report.error, report.estimate)
        for name, report in results.steps.items()
    }
    assert told == {
        "first": (StepOrigin.REPORTED, 0, timedelta(seconds=1.5), None, None),
        "gated": (StepOrigin.REPORTED, 0, timedelta(0), None, None),
    }
    raw = await waiting.stub.GetResults(
        pb.GetResultsRequest(namespace=waiting.namespace, key="k"), timeout=10
    )
    assert {step.started_us for step in raw.steps.values()} == {0}


async def test_a_report_for_another_revision_or_an_ended_run_changes_nothing(
    waiting: Side, tmp_path: Path
):
    await waiting.client.start("k", "probe", _inputs(tmp_path))
    assert await waiting.report("k", "first", revision=2) == (False, pb.STEP_STATE_PENDING)
    again = await waiting.client.start("k", "probe", _inputs(tmp_path, 2))
    assert (again.outcome, again.revision) == ("replaced", 2)
    assert await waiting.report("k", "first") == (False, pb.STEP_STATE_PENDING)
    created = (await waiting.client.get_results("k")).created_at
    assert created is not None
    before = created - timedelta(microseconds=1)  # as that of a run before a reset of the store
    refused = await waiting.report("k", "first", revision=2, created_at=before)
    assert refused == (False, pb.STEP_STATE_PENDING)
    accepted = await waiting.report("k", "first", revision=2, created_at=created)
    assert accepted == (True, pb.STEP_STATE_COMPLETED)
    await waiting.client.cancel("k")
    assert await waiting.report("k", "gated", revision=2) == (False, pb.STEP_STATE_PENDING)
    results = await waiting.client.get_results("k")
    assert (results.status, results.custom) == (PrecomputeStatus.CANCELLED, {"first": 7})


async def test_a_report_wakes_those_who_wait_or_watch(waiting: Side, tmp_path: Path):
    await waiting.client.start("k", "probe", _inputs(tmp_path))
    seen: list[tuple[str, list[str]]] = []

    async def watch() -> None:
        async for results in waiting.client.watch_results("k"):
            told = (str(results.status), sorted(results.custom or ()))
            if told not in seen:  # a message may repeat the one before
                seen.append(told)

    async with asyncio.timeout(LONG):
        watching = asyncio.create_task(watch())
        reading = asyncio.create_task(
            waiting.client.get_results("k", wait=600, required_steps=["gated"])
        )
        for steps in ([], ["first"], ["first", "gated"]):
            if steps:
                await waiting.report("k", steps[-1])
            await wait_until(lambda steps=steps: ("pending", steps) in seen)
        assert sorted((await reading).custom or ()) == ["first", "gated"]
        await waiting.client.cancel("k")
        await watching
    assert [steps for _, steps in seen[:3]] == [[], ["first"], ["first", "gated"]]
    assert seen[3:] == [("cancelled", ["first", "gated"])]


async def test_a_game_takes_what_its_steps_give_and_does_not_wait_for_what_it_lacks(waiting: Side):
    await waiting.client.start_bridging("k", " Ocean ", "forest", "human")
    joined = await waiting.client.start("k", "bridging", {
        "anchor": "OCEAN", "target": "forest", "recipient_type": "human", "clue_count": 5
    })  # fmt: skip
    assert joined.outcome == "joined"
    samples = pb.BridgingResults(null_samples=[0.25, 0.5])
    assert await waiting.report("k", "null_samples", samples) == (False, pb.STEP_STATE_PENDING)
    clues = pb.BridgingResults(haiku_clues=["tree"])
    assert await waiting.report("k", "haiku_bridge", clues) == (False, pb.STEP_STATE_UNSPECIFIED)
    both = pb.BridgingResults(anchor_embedding=[1, 0], target_embedding=[0, 1], embedding_model="m")
    assert await waiting.report("k", "embed_endpoints", both) == (True, pb.STEP_STATE_COMPLETED)
    assert await waiting.report("k", "null_samples", samples) == (True, pb.STEP_STATE_COMPLETED)
    async with asyncio.timeout(LONG):
        results = await waiting.client.get_results(
            "k", wait=600, required_steps=["haiku_bridge", "null_samples"]
        )
    assert results.missing == ("lexical_bridge",)
    assert results.bridging is not None
    assert results.bridging.null_samples == (0.25, 0.5)
    assert results.bridging.anchor_embedding == (1.0, 0.0)
    assert (results.bridging.embedding_model, results.bridging.lexical_bridge) == ("m", None)


async def test_get_or_compute_hands_back_what_it_computed(waiting: Side, tmp_path: Path):
    started = await waiting.client.start("k", "probe", _inputs(tmp_path))

    async def first() -> int:
        return 8

    async def gated(first: int) -> int:
        return first * 10

    got = await waiting.client.get_or_compute(
        "k",
        LONG,
        {"first": first, "gated": gated},
        report=True,
        budget=20.0,
        min_revision=started.revision,
    )
    assert (got.values, got.sources) == (
        {"first": 8, "gated": 80},
        {"first": "live", "gated": "live"},
    )

    async def kept() -> bool:
        results = await waiting.client.get_results("k")
        origins = {report.origin for report in results.steps.values()}
        return results.custom == {"first": 8, "gated": 80} and origins == {StepOrigin.REPORTED}

    await wait_until(kept)


async def test_get_or_compute_refuses_a_misspelt_step_and_computes_one_that_is_left_out(
    waiting: Side, tmp_path: Path
):
    async def compute() -> int:
        return 8

    async def got(key: str, *steps: str) -> Any:
        fallback = dict.fromkeys(steps, compute)
        return await waiting.client.get_or_compute(key, LONG, fallback, budget=20.0)

    await waiting.client.start("k", "probe", _inputs(tmp_path))
    known = "must be one of: first, gated"
    with pytest.raises(InvalidRequest) as caught:
        await got("k", "first", "gatde", "other")
    assert str(caught.value) == (
        f"fallback['gatde']: did you mean 'gated'? {known}; is 'gatde'; "
        f"fallback['other']: {known}; is 'other'"
    )
    await waiting.client.start_bridging("game", "ocean", "forest", "human")
    assert (await got("game", "haiku_bridge")).values == {"haiku_bridge": 8}
    with pytest.raises(InvalidRequest, match="did you mean 'haiku_bridge'"):
        await got("game", "haiku_brige")
    assert (await got("nobody", "haiku_brige")).values == {"haiku_brige": 8}  # nobody can know


# Repeating


async def test_a_repeated_restart_and_a_late_cancel_change_nothing(waiting: Side, tmp_path: Path):
    client, inputs = waiting.client, _inputs(tmp_path)

    async def restart(request_id: str | None = None, value: int = 1) -> tuple[str, str, int]:
        started = await client.start(
            "k", "probe", inputs | {"value": value}, restart=True, request_id=request_id
        )
        return started.outcome, started.status, started.revision

    assert await restart("a") == ("started", "pending", 1)
    assert await restart("a") == ("started", "pending", 1)
    assert await restart("b", 2) == ("replaced", "pending", 2)
    assert await restart("b", 2) == ("replaced", "pending", 2)
    assert await restart("b", 1) == ("replaced", "pending", 3)
    assert [await restart(), await restart()] == [
        ("started", "pending", 4),
        ("started", "pending", 5),
    ]
    assert await restart("c") == ("started", "pending", 6)
    stale = await client.cancel("k", revision=5)
    assert (stale.cancelled, stale.status, stale.revision) == (False, "pending", 6)
    assert (await client.cancel("k", revision=6)).cancelled
    assert await restart("c") == ("started", "cancelled", 6)


# Reading


async def test_a_later_revision_is_not_found_however_long_one_would_wait(
    waiting: Side, tmp_path: Path
):
    started = await waiting.client.start("k", "probe", _inputs(tmp_path))
    async with asyncio.timeout(LONG):
        for wait in (0, 600):
            with pytest.raises(NotFound):
                await waiting.client.get_results("k", wait=wait, min_revision=started.revision + 1)
    found = await waiting.client.get_results("k", min_revision=started.revision)
    assert found.revision == started.revision


async def test_results_that_are_needed_later_live_longer(working: Side):
    lives = {}
    for key, needed_in, ttl in (("at once", None, None), ("a", DAY, None), ("b", DAY, 60.0)):
        await working.client.start(key, "noop", {"value": 1}, expected_need_in=needed_in, ttl=ttl)
        await working.reaches(key, status="completed")
        seen = await working.client.get_results(key)
        assert seen.expires_at is not None
        assert seen.completed_at is not None
        lives[key] = round((seen.expires_at - seen.completed_at).total_seconds(), 3)
    assert lives == {"at once": 1800, "a": DAY + 1800, "b": 60}


async def test_how_soon_a_run_is_needed_has_bounds(waiting: Side, tmp_path: Path):
    for needed_in in (0, timedelta(days=7)):
        await waiting.client.start("k", "probe", _inputs(tmp_path), expected_need_in=needed_in)
    for wrong in (-0.001, timedelta(days=7, seconds=1)):
        with pytest.raises(InvalidRequest) as caught:
            await waiting.client.start("k", "probe", _inputs(tmp_path), expected_need_in=wrong)
        assert [each.field for each in caught.value.violations] == ["expected_need_in"]


async def test_missing_steps_have_estimates_while_the_run_goes_on(working: Side, tmp_path: Path):
    known = tmp_path / "known"
    known.mkdir()
    (known / "go").touch()
    await working.client.start("known", "probe", _inputs(known))
    ended = await working.client.get_results("known", wait=LONG)
    assert ended.status is PrecomputeStatus.COMPLETED
    await working.client.start("k", "probe", _inputs(tmp_path))
    await working.reaches("k", gated=RUNNING)

    async def estimated() -> Results | None:
        results = await working.client.get_results("k")
        return results if results.steps["gated"].estimate else None

    partial = await wait_until(estimated)
    assert partial is not None
    estimate = partial.steps["gated"].estimate
    assert estimate is not None
    assert timedelta(0) < estimate.p50 <= estimate.p90
    assert partial.steps["first"].estimate is None
    async for results in working.client.watch_results("k"):
        assert results.status.ended or results.steps["gated"].estimate
        await working.client.cancel("k")
    cancelled = await working.client.get_results("k")
    assert {report.estimate for report in cancelled.steps.values()} == {None}
    # Nobody computes it any more.
    assert _states(cancelled) == {"first": COMPLETED, "gated": PENDING}


async def test_the_ledger_tells_what_became_of_each_run_and_step(working: Side, tmp_path: Path):
    client = working.client
    assert (await client.get_stats()).ledger is None
    await client.start("used", "noop", {"value": 1})
    await working.reaches("used", status="completed")
    await client.get_results("used")
    assert (await client.start("used", "noop", {"value": 1})).outcome == "reused"

    await client.start("cancelled", "probe", _inputs(tmp_path))
    assert (await client.start("cancelled", "probe", _inputs(tmp_path))).outcome == "joined"
    await working.reaches("cancelled", gated=RUNNING)
    await client.get_results("cancelled")
    await client.cancel("cancelled")

    await client.start("replaced", "noop", {"value": 1})
    await working.reaches("replaced", status="completed")
    await client.start("replaced", "noop", {"value": 2})
    await working.reaches("replaced", status="completed")

    await client.start("reported", "probe", _inputs(tmp_path, 3))
    await working.reaches("reported", gated=RUNNING)
    await client.get_results("reported")
    assert await working.report("reported", "gated", 9) == (True, pb.STEP_STATE_COMPLETED)
    await working.reaches("reported", status="completed")
    await client.get_results("reported")

    stats = await client.get_stats()
    assert stats.status_counts == {"completed": 3, "cancelled": 1}
    assert stats.ledger is not None
    ledger = stats.ledger
    assert (ledger.starts, ledger.joined, ledger.reused, ledger.unsettled) == (5, 1, 1, 1)
    assert {fate: (work.runs, work.steps) for fate, work in ledger.fates.items()} == {
        "cancelled": (1, 0),
        "evicted": (0, 0),
        "expired": (0, 0),
        "failed": (0, 0),
        "replaced": (1, 1),
        "used_ready": (1, 3),
        "used_waited": (1, 0),
    }
    assert {name: told.runs for name, told in ledger.pipelines.items()} == {"noop": 1, "probe": 1}
    assert ledger.waited > timedelta(0)  # who read "reported" came before its end
    everywhere = (await client.get_stats(namespace="")).ledger
    assert everywhere is not None
    assert everywhere.starts >= ledger.starts


# Mistakes

Send = Callable[[Service], Any]


def _seconds(message: Any, field: str, value: float) -> Any:
    getattr(message, field).FromNanoseconds(round(value * 1e9))
    return message


def _start(key: str = "k", **more: Any) -> pb.StartPrecomputeRequest:
    return pb.StartPrecomputeRequest(key=key, **({"custom": {"pipeline": "noop"}} | more))


def _start_game(**more: Any) -> pb.StartPrecomputeRequest:
    spec: dict[str, Any] = {"anchor": "ocean", "target": "forest", "recipient_type": 1}
    return pb.StartPrecomputeRequest(key="k", bridging=spec | more)


def _start_with(**inputs: Any) -> pb.StartPrecomputeRequest:
    request = _start(custom={"pipeline": "bridging"})
    request.custom.inputs.update(inputs)
    return request


def _report(**more: Any) -> pb.ReportStepRequest:
    fields: dict[str, Any] = {"key": "run", "revision": 1, "step": "first"}
    return pb.ReportStepRequest(**(fields | more))


def _of_game(step: str, **results: Any) -> pb.ReportStepRequest:
    return _report(key="game", step=step, bridging=results)


def _json(number: float) -> dict[str, Any]:
    return {"json": {"number_value": number}}


ODD_GAME = (
    '{"anchor": 9007199254740993, "target": null, "clue_count": %s, "recipient_type": ["human"]}'
)
ODD_GAME %= 10**30
ODDER_GAME = '{"anchor": [1], "target": {}, "clue_count": true, "null_sample_count": -1%s}' % (
    "0" * 50
)
MISSPELT = '{"anchr": 1, "targett": 2, "recipient_type": "human", "a\\n": 3, "%s": 4}' % ("é" * 70)
BAD_TEXTS = (
    "[]",
    "{",
    '{"value": NaN}',
    '{"value": 1e400}',
    '{"a": 1, "a": 2}',
    r'{"a": "\ud800"}',
)

MISTAKES: dict[str, list[Any]] = {
    "StartPrecompute": [
        pb.StartPrecomputeRequest(),
        pb.StartPrecomputeRequest(namespace="No", key="k" * 257),
        _start(key="a\nb"),
        _start(request_id="x" * 65),
        _start(key="", request_id="a b"),
        _start(request_id="é"),
        _start(custom={"pipeline": "unheard of"}),
        _start(custom={"pipeline": "Prob"}),
        _start(custom={"pipeline": "bridging", "inputs_json": MISSPELT}),
        _seconds(_start(), "ttl", 0),
        _seconds(_seconds(_start(), "ttl", 7 * DAY + 1), "expected_need_in", -1),
        _seconds(_start(), "expected_need_in", 7 * DAY + 0.5),
        _start_with(anchor=math.nan),
        pb.StartPrecomputeRequest(key="k", bridging={}),
        _start_game(anchor="Forest "),
        _start_game(anchor="x" * 65, target="42"),
        _start_game(anchor="y" * 1025, target="a\tb"),
        _start_game(clue_count=0, null_sample_count=10_001),
        _start_game(clue_count=51, recipient_type=7),
        _start(custom={"pipeline": "bridging", "inputs_json": ODD_GAME}),
        _start(custom={"pipeline": "bridging", "inputs_json": ODDER_GAME}),
        *(_start(custom={"pipeline": "noop", "inputs_json": text}) for text in BAD_TEXTS),
        _start(custom={"pipeline": "noop", "inputs_json": "{}", "inputs": {}}),
        _start_with(anchor=2**53 + 1, more=[{"a": -1e300}]),
        _start_with(),
        _start_with(anchor=3, target="a", recipient_type="dog", clue_count=2.5, more=True),
        _start_with(anchor="a", target="b", recipient_type="human", clue_count="2"),
        _start_with(anchor="a", target="b", recipient_type="human", clue_count=51),
    ],
    "GetResults": [
        pb.GetResultsRequest(),
        pb.GetResultsRequest(key="nobody"),
        pb.GetResultsRequest(namespace="no one", key="\u2028"),
        _seconds(pb.GetResultsRequest(key="run"), "wait", -1),
        _seconds(pb.GetResultsRequest(key=""), "wait", 601),
        pb.GetResultsRequest(key="run", required_steps=["first"] * 1001),
        pb.GetResultsRequest(key="run", required_steps=["first", "x", "y"]),
        pb.GetResultsRequest(key="run", required_steps=["frist", "Gated", "é" * 50]),
        pb.GetResultsRequest(key="run", required_steps=["x"], min_revision=2),
        pb.GetResultsRequest(key="run", min_revision=-5),
        pb.GetResultsRequest(namespace="A", key="run", min_revision=-(2**63)),
        _seconds(pb.GetResultsRequest(key="run", required_steps=["x", "first"]), "wait", 600),
        pb.GetResultsRequest(key="game", required_steps=["null_samples", "x"]),
    ],
    "WatchResults": [pb.WatchResultsRequest(), pb.WatchResultsRequest(key="nobody")],
    "GetStatus": [pb.GetStatusRequest(namespace="ä"), pb.GetStatusRequest(key="nobody")],
    "CancelPrecompute": [
        pb.CancelPrecomputeRequest(namespace="A", key="\0"),
        pb.CancelPrecomputeRequest(key="nobody"),
        pb.CancelPrecomputeRequest(key="nobody", revision=-1),
        pb.CancelPrecomputeRequest(namespace="A", key="run", revision=-(2**63)),
    ],
    "ListPrecomputes": [
        pb.ListPrecomputesRequest(namespace="A", page_size=-1, page_token="!"),
        pb.ListPrecomputesRequest(page_size=1001, statuses=[0, 1, 9]),
        pb.ListPrecomputesRequest(page_token="bm8="),
        pb.ListPrecomputesRequest(statuses=[1] * 1001),
    ],
    "GetStats": [pb.GetStatsRequest(namespace="A B")],
    "ReportStep": [
        pb.ReportStepRequest(),
        pb.ReportStepRequest(namespace="A", key="k" * 300, revision=-1),
        _seconds(_report(artifact=_json(1)), "elapsed", -0.5),
        _seconds(_report(artifact=_json(1)), "elapsed", 7 * DAY + 1),
        _report(artifact={"data": b"x" * (1 << 20)}),
        _report(key="nobody", artifact=_json(1)),
        _report(step="x", artifact=_json(1)),
        _report(step="frist", artifact=_json(1)),
        _report(step="x", bridging={"haiku_clues": ["a"]}),
        _report(artifact={}),
        _report(artifact=_json(math.inf)),
        _report(artifact=_json(2.0**53) | {"large_integers": {0: "9007199254740994"}}),
        _report(artifact={"tensor": {"shape": [2, 2], "values": [1, 2, 3]}}),
        _report(artifact={"tensor": {"shape": [-1], "values": []}}),
        _report(key="game", step="null_samples", artifact=_json(1)),
        _report(key="game", step="x", bridging={}),
        _of_game("null_samples"),
        _of_game("null_samples", null_samples=[2, 1], haiku_clues=["a"]),
        _of_game("null_samples", null_samples=[2, 1]),
        _of_game("null_samples", null_samples=[math.nan]),
        _of_game("embed_endpoints", anchor_embedding=[1], target_embedding=[1]),
        _of_game(
            "embed_endpoints", anchor_embedding=[1], target_embedding=[1, 2], embedding_model="m"
        ),
        _of_game("lexical_bridge", lexical_bridge=["a", "b"], lexical_embeddings=[{"values": [1]}]),
        _of_game(
            "lexical_bridge",
            lexical_bridge=["a", "b"],
            lexical_embeddings=[{"values": [1]}, {"values": [math.inf]}],
        ),
        _of_game("haiku_embeddings", haiku_embeddings=[{"values": []}, {"values": [1]}]),
    ],
}


async def _refusal(service: Service, method: str, request: Any) -> tuple[str, list[Any]]:
    """The code, and the violations as (field, rule)."""
    call = getattr(service, method)(request, timeout=LONG)
    try:
        if method == "WatchResults":
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        told = error_details_pb2.BadRequest()
        for detail in status.details if status else ():
            assert detail.Unpack(told)
        return error.code().name, [(v.field, v.description) for v in told.field_violations]
    return "OK", []


async def test_the_same_mistakes_are_refused_with_the_same_violations(
    idle_fake: str, idle_real: str, tmp_path: Path
):
    answers: list[list[Any]] = []
    for address in (idle_fake, idle_real):
        async with PrecomputeClient(address) as client, stub(address) as service:
            await client.start("run", "probe", _inputs(tmp_path))
            await client.start_bridging("game", "ocean", "forest")
            answers.append(
                [
                    (method, number, *await _refusal(service, method, request))
                    for method, requests in MISTAKES.items()
                    for number, request in enumerate(requests)
                ]
            )
    differ = [pair for pair in zip(*answers, strict=True) if pair[0] != pair[1]]
    assert differ == []
    told = {(code, bool(violations)) for _, _, code, violations in answers[1]}
    assert told == {("INVALID_ARGUMENT", True), ("NOT_FOUND", False)}
