"""What get_or_compute takes from the service, what it computes, and what either costs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from headstart import Incomplete, InvalidRequest, PrecomputeClient
from headstart._errors.suggestions import unknown_among
from headstart.v1 import precompute_pb2 as pb
from tests.support.scripted_service import Fault, ScriptedService, hang
from tests.support.waiting import wait_until
from tests.unit.client.messages import PENDING, RUNNING, expected, values

LONG = 30.0
PATIENT = 20.0
"""A budget that a busy machine keeps."""


class Steps:
    """Fallbacks that count, and that a test holds."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.go = asyncio.Event()

    def held(self, name: str) -> Any:
        async def compute() -> str:
            self.begun.append(name)
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise
            return f"live {name}"

        return compute

    def quick(self, name: str) -> Any:
        async def compute() -> str:
            self.begun.append(name)
            return f"live {name}"

        return compute


@pytest.fixture
async def client(service: ScriptedService) -> AsyncIterator[PrecomputeClient]:
    async with PrecomputeClient(service.address) as client:
        yield client


async def test_what_is_ready_is_taken_in_one_call(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    service.on("GetResults", values(words="a b", longest="a"))
    steps = Steps()
    fallback = {name: steps.quick(name) for name in ("words", "longest")}
    got = await client.get_or_compute("k", LONG, fallback, budget=PATIENT)
    assert got.values == {"words": "a b", "longest": "a"}
    assert got.sources == {"words": "ready", "longest": "ready"}
    assert got.results is not None
    assert steps.begun == []
    [call] = service.seen("GetResults")
    assert not call.request.required_steps
    assert not call.request.HasField("wait")


async def test_only_what_is_missing_is_computed_from_values_of_both_kinds(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    service.on("GetResults", values(words="there"))

    async def longest(words: str) -> str:
        return f"longest of {words}"

    async def both(words: str, longest: str, more: str = "!") -> str:
        return f"{words} + {longest}{more}"

    fallback = {"both": both, "longest": longest, "words": Steps().quick("words")}
    got = await client.get_or_compute("k", LONG, fallback, budget=PATIENT)
    assert list(got.values) == ["both", "longest", "words"]
    assert got.values["both"] == "there + longest of there!"
    assert got.sources == {"both": "live", "longest": "live", "words": "ready"}
    assert "the run has no step" in got.reasons["both"]
    assert got.seconds["words"] <= got.seconds["longest"] <= got.seconds["both"]


def _knows(*steps: str, **ready: Any) -> Any:
    """A service whose pipeline has more steps than the run, and knows its names."""
    known = {*steps, *ready}

    async def answer(request: pb.GetResultsRequest, context: Any) -> pb.GetResultsResponse:
        wrong = list(unknown_among(request.required_steps, known))
        if wrong:
            violations = [(f"required_steps[{place}]", rule) for place, rule in wrong]
            await Fault(grpc.StatusCode.INVALID_ARGUMENT, "no", violations=violations).raise_in(
                context
            )
        return values(**ready)

    return answer


async def test_a_step_that_the_pipeline_does_not_have_is_an_error(
    service: ScriptedService, client: PrecomputeClient, caplog: pytest.LogCaptureFixture
) -> None:
    service.on("GetResults", _knows("bonus", card="A"))
    steps = Steps()
    fallback = {name: steps.quick(name) for name in ("crad", "card", "bonus", "zzz")}
    with pytest.raises(InvalidRequest) as caught:
        await client.get_or_compute("k", LONG, fallback, budget=PATIENT)
    known = "must be one of: bonus, card"
    assert str(caught.value) == (
        f"fallback['crad']: did you mean 'card'? {known}; is 'crad'; "
        f"fallback['zzz']: {known}; is 'zzz'"
    )
    assert steps.begun == []
    assert caplog.records == []


async def test_a_step_that_a_run_leaves_out_is_asked_about_once_and_computed(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    service.on("GetResults", _knows("bonus", card="A"))
    steps = Steps()
    fallback = {name: steps.quick(name) for name in ("card", "bonus")}
    for _ in range(3):
        got = await client.get_or_compute("k", LONG, fallback, budget=PATIENT)
        assert got.sources == {"card": "ready", "bonus": "live"}
    required = [list(call.request.required_steps) for call in service.seen("GetResults")]
    assert required == [[], ["bonus"], [], []]


async def test_a_misspelt_step_is_an_error_also_when_the_answer_is_late(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    knows = _knows(card="A")
    go = threading.Event()

    async def slow(request: Any, context: Any) -> Any:
        await asyncio.to_thread(go.wait, LONG)
        return await knows(request, context)

    service.on("GetResults", slow)
    steps = Steps()

    async def begun() -> None:
        await wait_until(lambda: steps.begun == ["crad"])
        go.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(begun())
        with pytest.raises(InvalidRequest, match="did you mean 'card'"):
            await client.get_or_compute("k", LONG, {"crad": steps.held("crad")}, budget=0.001)
    assert steps.cancelled == ["crad"]


async def test_independent_steps_are_computed_at_the_same_time(client: PrecomputeClient) -> None:
    meeting = asyncio.Barrier(2)

    async def meet() -> int:
        await meeting.wait()
        return 1

    got = await client.get_or_compute("k", LONG, {"a": meet, "b": meet}, budget=PATIENT)
    assert got.sources == {"a": "live", "b": "live"}
    assert got.reasons["a"] == "nothing was started under this key"


@pytest.mark.parametrize("which", ["refused", "black_hole"])
async def test_a_service_that_is_away_makes_everything_live(
    which: str, request: pytest.FixtureRequest
) -> None:
    async with PrecomputeClient(request.getfixturevalue(which)) as client:
        for _ in range(5):
            got = await client.get_or_compute("k", LONG, {"a": Steps().quick("a")})
            assert got.values == {"a": "live a"}
        assert "was not asked" in got.reasons["a"]


async def test_a_service_that_hangs_is_not_asked_again_at_once(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    service.on("GetResults", hang)
    reasons = [
        (await client.get_or_compute("k", LONG, {"a": Steps().quick("a")})).reasons["a"]
        for _ in range(6)
    ]
    assert len(service.seen("GetResults")) <= 4  # the pause may be over on a machine that is busy
    assert "did not answer within 25 ms" in reasons[0]


async def test_an_answer_over_budget_is_still_taken_before_a_slow_computation(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    steps = Steps()

    async def late(_: Any, __: Any) -> Any:
        await asyncio.sleep(0.1)
        return values(a="there")

    service.on("GetResults", late)
    for _ in range(5):  # it is of use each time, so it is asked each time
        got = await client.get_or_compute("k", LONG, {"a": steps.held("a")})
        assert (got.values, got.sources) == ({"a": "there"}, {"a": "waited"})
    assert steps.cancelled == ["a"] * 5
    assert len(service.seen("GetResults")) == 5


async def test_a_step_that_is_nearly_there_is_waited_for(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    service.on("GetResults", values({"a": expected(0.5, 10.0)}), values(a="there"))
    steps = Steps()
    got = await client.get_or_compute("k", LONG, {"a": steps.quick("a")}, budget=PATIENT)
    assert (got.values, got.sources) == ({"a": "there"}, {"a": "waited"})
    assert steps.begun == []
    first, second = (call.request for call in service.seen("GetResults"))
    assert (list(first.required_steps), list(second.required_steps)) == ([], ["a"])


async def test_a_step_is_waited_for_where_that_is_faster_than_what_computing_took(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    async def slow() -> str:
        await asyncio.sleep(0.3)
        return "live"

    service.on("GetResults", values(other="x"))
    await client.get_or_compute("k", LONG, {"a": slow}, budget=PATIENT)
    steps = Steps()
    service.on("GetResults", values({"a": expected(0.1, 0.2)}), values(a="there"))
    got = await client.get_or_compute("k", LONG, {"a": steps.quick("a")}, budget=0.15)
    assert got.sources == {"a": "waited"} or "did not answer" in got.reasons["a"]
    service.on("GetResults", values({"a": expected(0.5, 60.0)}), hang)
    got = await client.get_or_compute("k", LONG, {"a": steps.quick("a")}, budget=PATIENT)
    assert got.sources == {"a": "live"}
    assert "expected within 60 s" in got.reasons["a"]


async def test_a_step_that_does_not_come_as_expected_is_computed(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    service.on("GetResults", values({"a": expected(0.01, 0.02)}), hang)
    got = await client.get_or_compute("k", LONG, {"a": Steps().quick("a")}, budget=PATIENT)
    assert got.sources == {"a": "live"}
    assert "but it was not there" in got.reasons["a"]


async def test_without_an_estimate_both_are_tried_and_the_loser_is_stopped(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    asked, gone = threading.Event(), threading.Event()
    steps = Steps()

    async def waits(_: Any, context: Any) -> Any:
        context.add_done_callback(lambda _: gone.set())
        asked.set()
        await asyncio.Event().wait()

    async def computed() -> str:
        await wait_until(asked.is_set)
        return "live"

    async def soon(_: Any, __: Any) -> Any:
        await asyncio.sleep(0.05)
        return values(a="there")

    running = values({"a": pb.StepReport(state=RUNNING)})
    service.on("GetResults", running, waits)
    got = await client.get_or_compute("k", LONG, {"a": computed}, budget=PATIENT)
    assert got.sources == {"a": "live"}
    await wait_until(gone.is_set)
    service.on("GetResults", running, soon)
    got = await client.get_or_compute("k", LONG, {"a": steps.held("a")}, budget=PATIENT)
    assert (got.values, got.sources) == ({"a": "there"}, {"a": "waited"})
    assert steps.cancelled == ["a"]


@pytest.mark.parametrize("reset", [False, True])
async def test_an_answer_of_another_run_is_not_mixed_in(
    service: ScriptedService, client: PrecomputeClient, *, reset: bool
) -> None:
    other = values(a="of other inputs")
    if reset:  # revisions have begun anew: it is another run of the same one
        other.created_at.seconds += 1
    else:
        other.revision += 1
    service.on("GetResults", values({"a": pb.StepReport(state=RUNNING)}, b="x"), other)
    steps = Steps()

    async def after_the_other() -> str:
        await wait_until(lambda: len(service.seen("GetResults")) > 1)
        await asyncio.sleep(0.1)  # its answer is on its way; if it is not there, nothing is shown
        return "live a"

    fallback = {"a": after_the_other, "b": steps.held("b")}
    got = await client.get_or_compute("k", LONG, fallback, budget=PATIENT)
    assert got.values == {"a": "live a", "b": "x"}


async def test_nothing_older_than_min_revision_is_taken(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    service.on("GetResults", values(a="old"))
    got = await client.get_or_compute(
        "k", LONG, {"a": Steps().quick("a")}, budget=PATIENT, min_revision=4
    )
    assert got.values == {"a": "live a"}
    assert service.seen("GetResults")[0].request.min_revision == 4


async def test_the_deadline_leaves_what_there_is_and_names_the_rest(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    service.on("GetResults", values({"b": pb.StepReport(state=PENDING)}, a="there"), hang)
    steps = Steps()
    fallback = {"a": steps.held("a"), "b": steps.held("b"), "c": steps.held("c")}
    with pytest.raises(Incomplete, match="of k: b, c") as caught:
        await client.get_or_compute("k", 0.4, fallback, budget=0.3)
    assert caught.value.missing == ("b", "c")
    assert caught.value.computed is not None
    assert caught.value.computed.values == {"a": "there"}
    assert caught.value.computed.sources == {"a": "ready"}
    assert sorted(steps.cancelled) == ["b", "c"]


async def test_an_error_of_a_fallback_is_raised_as_it_is(client: PrecomputeClient) -> None:
    steps = Steps()

    async def broken() -> None:
        raise LookupError("no such word")

    async def after(broken: None) -> None:
        steps.begun.append("after")

    fallback = {"broken": broken, "after": after, "held": steps.held("held")}
    with pytest.raises(LookupError, match="no such word") as caught:
        await client.get_or_compute("k", LONG, fallback, budget=PATIENT)
    assert caught.value.__notes__[0] == "in the fallback of step broken of k"
    assert (steps.begun, steps.cancelled) == (["held"], ["held"])


async def test_an_error_is_forgiven_if_the_service_gives_the_step_after_all(
    service: ScriptedService, client: PrecomputeClient
) -> None:
    failed = asyncio.Event()

    async def broken() -> None:
        failed.set()
        raise LookupError("no such word")

    async def after_that(_: Any, __: Any) -> Any:
        await wait_until(failed.is_set)
        return values(a="there")

    service.on("GetResults", values({"a": pb.StepReport(state=RUNNING)}), after_that)
    got = await client.get_or_compute("k", LONG, {"a": broken}, budget=PATIENT)
    assert got.values == {"a": "there"}
