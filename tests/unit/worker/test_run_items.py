"""Steps that run once for each item of a list."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from headstart.v1 import precompute_pb2 as pb
from headstart_service.domain import Claim, FailureReason, KeptItems, Lease, StepRecord, StepState
from headstart_service.domain.errors import ExecutorUnavailable, StepFailed
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.sdk import Item
from headstart_service.testing import run_pipeline
from headstart_service.values.limits import Limits
from headstart_service.worker.cost_meter import spend
from headstart_service.worker.item_board import Pause
from headstart_service.worker.reuse import Reuse
from headstart_service.worker.run import run
from tests.support.ledger import Dictionary, Ledger, claim_for, claim_of, tasks_left
from tests.support.outcomes import Outcomes
from tests.support.waiting import wait_until

FAILED = FailureReason.STEP_FAILED


class Names(BaseModel):
    names: Any = []


@step(each="names")
async def lengths(names: str) -> int:
    if not names:
        raise StepFailed("no name", retry=False)
    return len(names)


@step()
async def total(lengths: list[Item[int]]) -> int:
    return sum(each.value or 0 for each in lengths if not each.failed)


def pipeline(*steps: Any) -> Pipeline:
    return Pipeline("items", "1", "", Names, steps)


async def ran(*steps: Any, names: Any) -> Any:
    return await run_pipeline(pipeline(*steps), {"names": names}, providers={}, timeout=10)


async def test_each_item_has_a_value_or_a_reason_in_the_order_of_the_list() -> None:
    found = await ran(lengths, total, names=["a", "", "ccc"])
    assert found.values == {
        "lengths": [Item(1), Item(error="no name", reason=FAILED), Item(3)],
        "total": 4,
    }
    report = found.steps["lengths"]
    assert (report.items.total, report.items.completed, report.items.failed) == (3, 2, 1)
    shown = found.results.items("lengths", int)
    assert [(item.index, item.value, item.error) for item in shown] == [
        (0, 1, None),
        (1, None, "no name"),
        (2, 3, None),
    ]


async def test_an_empty_list_gives_an_empty_list() -> None:
    found = await ran(lengths, total, names=[])
    assert found.values == {"lengths": [], "total": 0}
    assert found.steps["lengths"].items.total == 0


async def test_a_step_may_work_on_the_list_of_another_step_with_its_failures() -> None:
    @step(each="lengths")
    async def doubled(lengths: Item[int]) -> int:
        return 2 * lengths.value if lengths.value else 0

    found = await ran(lengths, doubled, names=["a", ""])
    assert found.values["doubled"] == [Item(2), Item(0)]


@pytest.mark.parametrize(
    ("names", "reason", "error"),
    [
        ("abc", "wrong_type", "names must be a list of 0 to 3 items, is str"),
        ({"a": 1}, "wrong_type", "names must be a list of 0 to 3 items, is dict"),
        (["a"] * 4, "too_large", "names must be a list of 0 to 3 items, has 4"),
    ],
)
async def test_what_is_no_list_or_too_long_fails_that_step_alone(
    names: object, reason: str, error: str
) -> None:
    @step(each="names", max_items=3)
    async def few(names: str) -> str:
        return names

    @step()
    async def beside(names: object) -> bool:
        return bool(names)

    found = await ran(few, beside, names=names)
    assert (found.status, found.values) == ("completed", {"beside": True})
    assert (found.steps["few"].error, found.steps["few"].failure_reason) == (error, reason)


async def test_each_item_has_its_own_timeout_and_tries_and_few_run_at_a_time() -> None:
    tries: Counter[str] = Counter()
    running, peak = 0, 0

    @step(each="names", parallel=2, max_attempts=2, backoff=0.01, timeout=0.1)
    async def tried(names: str) -> str:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        try:
            tries[names] += 1
            if names == "slow":
                await asyncio.sleep(9)
            if names == "late" and tries[names] == 1:
                raise StepFailed("not yet")
            await asyncio.sleep(0.01)
        finally:
            running -= 1
        return names

    found = await ran(tried, names=["a", "slow", "late", "b", "c"])
    slow = Item(error="took longer than 0.1 s", reason=FailureReason.TIMED_OUT)
    assert found.values["tried"] == [Item("a"), slow, Item("late"), Item("b"), Item("c")]
    assert tries == {"a": 1, "slow": 2, "late": 2, "b": 1, "c": 1}
    assert (peak, found.steps["tried"].attempts) == (2, 2)


async def test_a_step_fails_when_all_of_its_items_do_and_shows_them() -> None:
    found = await ran(lengths, total, names=["", ""])
    report = found.steps["lengths"]
    assert (report.state, report.failure_reason) == (StepState.FAILED.value, FAILED)
    assert report.error == "all 2 items failed; the first: no name"
    assert [item.error for item in found.results.items("lengths")] == ["no name", "no name"]
    assert found.steps["total"].state == "skipped"


async def test_an_item_of_another_type_than_the_step_returns_fails_alone() -> None:
    @step(each="names")
    async def odd(names: str) -> int:
        return names if names == "a" else 1  # type: ignore[return-value]

    assert (await ran(odd, names=["a", "b"])).values["odd"] == [
        Item(error="returned str, not int", reason=FailureReason.WRONG_TYPE),
        Item(1),
    ]


async def test_each_item_has_a_digest_of_its_own() -> None:
    @step(each="names")
    async def seeds(names: str, step_digest: str) -> str:
        return step_digest

    first, second, third = (await ran(seeds, names=["a", "b", "a"])).values["seeds"]
    assert first == third != second


# On the runner alone.


async def run_of(given: Claim, made: Pipeline, **more: Any) -> Ledger:
    ledger = Ledger()
    async with asyncio.timeout(10):
        await run(given, made, {}, ledger, **more)
    assert tasks_left() == set()
    return ledger


def message(ledger: Ledger) -> pb.GetResultsResponse:
    assert ledger.end is not None
    return pb.GetResultsResponse.FromString(b"".join(r.fragment for r in ledger.end.ended))


async def test_items_that_are_too_large_together_fail_the_step_and_stop_the_others() -> None:
    begun = []

    @step(each="names", parallel=1)
    async def large(names: str) -> str:
        begun.append(names)
        return "x" * 400

    made = pipeline(large)
    ledger = await run_of(
        claim_of(made, {"names": ["a", "b", "c", "d", "e"]}), made, limits=Limits(artifact=1000)
    )
    report = message(ledger).steps["large"]
    assert report.failure_reason == pb.FAILURE_REASON_TOO_LARGE
    assert report.error.startswith("3 of 5 items are 1,206 bytes; HEADSTART_MAX_ARTIFACT_BYTES is")
    assert begun == ["a", "b", "c"]


async def test_a_memoised_item_is_computed_once_whatever_list_it_stands_in() -> None:
    computed: Counter[str] = Counter()

    @step(each="names", memo=True)
    async def upper(names: str) -> str:
        computed[names] += 1
        await asyncio.sleep(0.01)
        return names.upper()

    made, reuse = pipeline(upper), Reuse(Dictionary())
    await run_of(claim_for(made, "k1", names=["a", "b", "a"]), made, reuse=reuse)
    assert computed == {"a": 1, "b": 1}, "equal items of a list are one"
    again = await run_of(claim_for(made, "k2", names=["c", "b"]), made, reuse=reuse)
    assert computed == {"a": 1, "b": 1, "c": 1}
    whole = await run_of(claim_for(made, "k3", names=["b", "c"]), made, reuse=reuse)
    origins = [message(each).steps["upper"].origin for each in (again, whole)]
    assert origins == [pb.STEP_ORIGIN_UNSPECIFIED, pb.STEP_ORIGIN_MEMOISED]
    texts = [message(each).custom.artifacts["upper"].json for each in (again, whole)]
    assert texts == ['[{"value":"C"},{"value":"B"}]', '[{"value":"B"},{"value":"C"}]']


async def test_rules_of_a_step_count_for_each_item_and_its_size_for_all() -> None:
    tries: Counter[str] = Counter()

    @step(
        each="names",
        memo=True,
        ttl=7,
        memo_failures=5,
        max_bytes=100,
        max_attempts=2,
        backoff=0,
        retry_on=(OSError,),
    )
    async def ruled(names: str) -> str:
        tries[names] += 1
        if names == "again":
            raise OSError
        if names == "once":
            raise KeyError
        return names

    made, memos = pipeline(ruled), Dictionary()
    names = ["a", "again", "once"]
    one, two = Outcomes(), Outcomes()
    first, again = [
        await run_of(claim_for(made, key, names=names), made, observer=seen, reuse=Reuse(memos))
        for key, seen in (("k1", one), ("k2", two))
    ]
    assert one.steps["ruled"].items == {"completed": 1, "failed": 2}
    assert two.steps["ruled"].items == {"reused": 3}
    assert tries == {"a": 1, "again": 2, "once": 1}, "failures are remembered, too"
    assert sorted(memos.ttls.values()) == [5, 5, 7]
    texts = [message(each).custom.artifacts["ruled"].json for each in (first, again)]
    assert texts[0] == texts[1]
    whole = await run_of(claim_of(made, {"names": [letter * 60 for letter in "ab"]}), made)
    error = message(whole).steps["ruled"].error
    assert error == "2 of 2 items are 124 bytes; its max_bytes is 100"


async def test_items_that_are_stopped_are_counted_with_those_that_have_ended() -> None:
    begun: list[str] = []
    counted: list[StepRecord] = []

    async def count(_: Lease, stopped: StepRecord) -> None:
        counted.append(stopped)

    @step(each="names")
    async def costly(names: str) -> str:
        spend(llm_tokens=10)
        begun.append(names)
        if names != "quick":
            await asyncio.Event().wait()
        return names

    made, ledger, reuse = pipeline(costly), Ledger(), Reuse(count=count)
    given = claim_of(made, {"names": ["quick", "a", "b"]})
    running = asyncio.create_task(run(given, made, {}, ledger, reuse=reuse))
    await wait_until(lambda: len(begun) == 3 and any(each.fragment for each in ledger.chunks))
    running.cancel()
    await asyncio.wait({running})
    await reuse.stopped_work.aclose()
    assert [each.work.llm_tokens for each in counted if each.work] == [10, 10, 10]


def chunks_as_kept(ledger: Ledger) -> KeptItems:
    last = ledger.chunks[-1]
    whole = b"".join(chunk.fragment for chunk in ledger.chunks)
    return KeptItems(last.basis, last.number, whole)


def held(names: Sequence[str], *, stop: str) -> tuple[Pipeline, Counter[str], asyncio.Event]:
    """A pipeline whose item `stop` waits for the event."""
    computed: Counter[str] = Counter()
    gate = asyncio.Event()

    @step(each="names", parallel=4)
    async def upper(names: str) -> str:
        computed[names] += 1
        if names == stop:
            await gate.wait()
        if names == "bad":
            raise StepFailed("bad", retry=False)
        return names.upper()

    return pipeline(upper), computed, gate


async def test_the_next_holder_computes_only_what_is_missing_of_the_same_list() -> None:
    names = ["a", "bad", "stop", "c"]
    made, computed, gate = held(names, stop="stop")
    ledger, given = Ledger(), claim_of(made, {"names": names})
    running = asyncio.create_task(run(given, made, {}, ledger))
    await wait_until(lambda: chunks_as_kept(ledger).fragment if ledger.chunks else False)
    running.cancel()
    await asyncio.wait({running})
    await wait_until(lambda: not tasks_left())
    kept = chunks_as_kept(ledger)
    shown = pb.GetResultsResponse.FromString(kept.fragment)
    assert sorted((i.index, i.json, i.error) for i in shown.items) == [
        (0, '"A"', ""),
        (1, "", "bad"),
        (3, '"C"', ""),
    ]
    progress = pb.GetResultsResponse.FromString(ledger.chunks[-1].report).steps["upper"].items
    assert (progress.total, progress.completed, progress.failed, progress.running) == (4, 2, 1, 1)
    assert progress.HasField("estimate")
    gate.set()
    ended = await run_of(replace(given, items={"upper": kept}), made)
    assert computed == {"a": 1, "bad": 1, "stop": 2, "c": 1}
    bad = '{"error":"bad","reason":"step_failed"}'
    assert message(ended).custom.artifacts["upper"].json == (
        f'[{{"value":"A"}},{bad},{{"value":"STOP"}},{{"value":"C"}}]'
    )
    other = claim_of(made, {"names": ["a", "bad", "stop", "d"]})
    await run_of(replace(other, items={"upper": kept}), made)
    assert computed["a"] == 2, "another list has another basis"


async def test_a_thousand_items_make_few_writes_and_each_is_written_once() -> None:
    @step(each="names", parallel=50)
    async def slow(names: int) -> int:
        await asyncio.sleep(0.02)
        return names

    made, began = pipeline(slow), time.monotonic()
    ledger = await run_of(claim_of(made, {"names": list(range(1000))}), made)
    places = [
        item.index
        for chunk in ledger.chunks
        for item in pb.GetResultsResponse.FromString(chunk.fragment).items
    ]
    assert len(places) == len(set(places))
    writes = len(ledger.chunks)
    assert 2 <= writes <= (time.monotonic() - began) / Pause.FIRST + 1
    # On a busy machine the first has the length of the list alone.
    numbers = [chunk.number for chunk in ledger.chunks if chunk.fragment]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_run_that_is_stopped_stops_all_its_items() -> None:
    begun, stopped = [], []

    @step(each="names")
    async def endless(names: str) -> str:
        begun.append(names)
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(names)
        return names

    made = pipeline(endless)
    running = asyncio.create_task(
        run(claim_of(made, {"names": [*"abcdefghij"]}), made, {}, Ledger())
    )
    await wait_until(lambda: len(begun) == 8)
    running.cancel()
    await asyncio.wait({running})
    assert sorted(stopped) == sorted(begun)
    await wait_until(lambda: not tasks_left())


async def test_an_item_that_cannot_run_here_hands_its_run_on() -> None:
    @step(each="names")
    async def away(names: str) -> str:
        raise ExecutorUnavailable("away")

    made = pipeline(away)
    with pytest.raises(ExecutorUnavailable, match="away"):
        await run(claim_of(made, {"names": ["a", "b"]}), made, {}, Ledger())


async def test_a_step_has_cost_what_all_its_items_have() -> None:
    @step(each="names")
    async def costly(names: str) -> str:
        spend(llm_tokens=10)
        return names

    made = pipeline(costly)
    ledger = await run_of(claim_of(made, {"names": ["a", "b", "c"]}), made)
    assert ledger.end is not None
    [record] = ledger.end.ended
    assert record.work is not None
    assert record.work.llm_tokens == 30
