"""`headstart.testing.fake_server` does what the service does: the same assertions hold of both."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from headstart import (
    BlockingClient,
    InvalidRequest,
    NotFound,
    PrecomputeStatus,
    Results,
    Start,
    Started,
    StepOrigin,
    StepState,
)
from headstart.v1 import precompute_pb2 as pb
from tests.integration.fake.conftest import Side, inputs_of
from tests.support.waiting import wait_until

LONG = 30.0
DAY = 86_400.0
COMPLETED, RUNNING, PENDING = StepState.COMPLETED, StepState.RUNNING, StepState.PENDING


def _states(results: Results) -> dict[str, StepState]:
    return {name: report.state for name, report in results.steps.items()}


# Reports


async def test_the_first_result_of_a_step_is_kept_if_what_it_needs_is(
    waiting: Side, tmp_path: Path
):
    await waiting.client.start("k", "probe", inputs_of(tmp_path))
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
    await waiting.client.start("k", "probe", inputs_of(tmp_path))
    assert await waiting.report("k", "first", revision=2) == (False, pb.STEP_STATE_PENDING)
    again = await waiting.client.start("k", "probe", inputs_of(tmp_path, 2))
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
    await waiting.client.start("k", "probe", inputs_of(tmp_path))
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
    started = await waiting.client.start("k", "probe", inputs_of(tmp_path))

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

    await waiting.client.start("k", "probe", inputs_of(tmp_path))
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


# Many runs


def _start(key: str, tmp_path: Path, value: int = 1, **more: Any) -> Start:
    return Start(**{"key": key, "pipeline": "probe", "inputs": inputs_of(tmp_path, value)} | more)


async def test_each_start_of_many_has_its_own_outcome(waiting: Side, tmp_path: Path):
    started = await waiting.client.start_many(
        [
            _start("a", tmp_path),
            _start("", tmp_path),
            _start("a", tmp_path, 2),
            _start("b", tmp_path, pipeline="prob"),
            _start("c", tmp_path),
        ]
    )
    first, unnamed, again, misspelt, other = started
    for each, outcome, revision in ((first, "started", 1), (again, "replaced", 2)):
        assert isinstance(each, Started)
        assert (each.outcome, each.revision) == (outcome, revision)
    assert isinstance(other, Started)
    for each, field in ((unnamed, "key"), (misspelt, "custom.pipeline")):
        assert isinstance(each, InvalidRequest)
        assert [violation.field for violation in each.violations] == [field]


async def test_the_results_of_many_keys_have_those_that_exist(waiting: Side, tmp_path: Path):
    await waiting.client.start_many([_start("a", tmp_path), _start("b", tmp_path)])
    await waiting.report("a", "first", 3)
    found = await waiting.client.get_many(["b", "nobody", "a"], result_steps=["first"])
    assert list(found) == ["b", "nobody", "a"]
    assert isinstance(found["nobody"], NotFound)
    results = [found[key] for key in ("a", "b")]
    assert all(isinstance(each, Results) for each in results)
    assert [each.custom for each in results if isinstance(each, Results)] == [{"first": 3}, {}]
    assert await waiting.client.get_many([]) == {}
    async with asyncio.timeout(LONG):
        waited = await waiting.client.get_many(
            ["a", "b"], wait=600, required_steps=["first"], min_ready=1
        )
    assert len(waited) == 2
    reading = asyncio.create_task(
        waiting.client.get_many(["a", "b"], wait=600, required_steps=["first"])
    )
    await waiting.report("b", "first", 4)
    async with asyncio.timeout(LONG):
        assert {key: each.custom for key, each in (await reading).items()} == {  # type: ignore[union-attr]
            "a": {"first": 3},
            "b": {"first": 4},
        }


async def test_many_keys_are_watched_until_each_has_ended(waiting: Side, tmp_path: Path):
    await waiting.client.start_many([_start("a", tmp_path), _start("b", tmp_path)])
    seen: dict[str, list[str]] = {}

    async def watch() -> None:
        async for key, found in waiting.client.watch_many(["a", "b", "nobody"]):
            told = str(found.status) if isinstance(found, Results) else type(found).__name__
            if told not in seen.setdefault(key, []):
                seen[key].append(told)

    async with asyncio.timeout(LONG):
        watching = asyncio.create_task(watch())
        await wait_until(lambda: len(seen) == 3)
        for key in ("b", "a"):
            await waiting.client.cancel(key)
        await watching
    ended = ["pending", "cancelled"]
    assert seen == {"a": ended, "b": ended, "nobody": ["NotFound"]}


async def test_only_wanted_results_and_changes_are_sent(waiting: Side, tmp_path: Path):
    await waiting.client.start("k", "probe", inputs_of(tmp_path))
    for step in ("first", "gated"):
        await waiting.report("k", step)
    found = await waiting.client.get_results("k", result_steps=["gated"])
    assert found.custom == {"gated": 7}
    assert _states(found) == {"first": COMPLETED, "gated": COMPLETED}
    request = pb.WatchResultsRequest(namespace=waiting.namespace, key="k", changes_only=True)
    stream = waiting.stub.WatchResults(request, timeout=LONG)
    whole = (await stream.read()).results
    assert set(whole.custom.artifacts) == {"first", "gated"}
    await waiting.client.cancel("k")
    last = whole
    while last.status != pb.PRECOMPUTE_STATUS_CANCELLED:
        last = (await stream.read()).results
    assert not last.custom.artifacts
    assert not last.steps


async def test_a_stream_of_an_unknown_step_names_the_argument(waiting: Side, tmp_path: Path):
    await waiting.client.start("k", "probe", inputs_of(tmp_path))
    with pytest.raises(InvalidRequest) as error:
        await anext(waiting.client.stream("k", "nobody"))
    assert [each.field for each in error.value.violations] == ["step"]
    with BlockingClient(waiting.address, namespace=waiting.namespace) as client:
        with pytest.raises(InvalidRequest) as blocking:
            next(client.stream("k", "nobody"))
    assert str(blocking.value) == str(error.value)
    with pytest.raises(NotFound):
        await anext(waiting.client.stream("nowhere", "first"))


async def test_a_run_is_deleted_whatever_it_does_and_only_once(working: Side, tmp_path: Path):
    client = working.client
    await client.start("k", "probe", inputs_of(tmp_path))
    await working.reaches("k", gated=RUNNING)
    assert not await client.delete("k", revision=2)
    assert await client.delete("k", revision=1)
    assert not await client.delete("k")
    for call in (client.get_results("k"), client.touch("k")):
        with pytest.raises(NotFound):
            await call
    started = await client.start("k", "probe", inputs_of(tmp_path))
    assert (started.outcome, started.revision) == ("started", 1)
    assert (await client.get_stats()).ledger.fates["cancelled"].runs == 1
    await client.cancel("k")
    await client.get_results("k")
    assert await client.delete("k")
    assert (await client.get_stats()).total_cached == 0


async def test_a_touch_lets_a_run_live_longer_and_never_shorter(working: Side, tmp_path: Path):
    client = working.client
    await client.start("k", "probe", inputs_of(tmp_path), ttl=60)
    assert (await client.touch("k", ttl=120)).status in {"pending", "in_progress"}
    await client.cancel("k")
    before = (await client.get_results("k")).expires_at
    assert before is not None
    touched = await client.touch("k", ttl=timedelta(hours=1), revision=1)
    assert (touched.key, touched.status) == ("k", "cancelled")
    assert touched.revision == 1
    assert timedelta(minutes=58) < touched.expires_at - before < timedelta(minutes=61)
    shorter = await client.touch("k", ttl=1)
    found = (await client.get_results("k")).expires_at
    assert found is not None
    for other in (shorter.expires_at, found):
        assert abs(other - touched.expires_at) < timedelta(seconds=1)
    with pytest.raises(NotFound, match="/k revision 2"):
        await client.touch("k", revision=2)


async def test_a_repeated_restart_and_a_late_cancel_change_nothing(waiting: Side, tmp_path: Path):
    client, inputs = waiting.client, inputs_of(tmp_path)

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
    started = await waiting.client.start("k", "probe", inputs_of(tmp_path))
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
        await waiting.client.start("k", "probe", inputs_of(tmp_path), expected_need_in=needed_in)
    for wrong in (-0.001, timedelta(days=7, seconds=1)):
        with pytest.raises(InvalidRequest) as caught:
            await waiting.client.start("k", "probe", inputs_of(tmp_path), expected_need_in=wrong)
        assert [each.field for each in caught.value.violations] == ["expected_need_in"]


async def test_missing_steps_have_estimates_while_the_run_goes_on(working: Side, tmp_path: Path):
    known = tmp_path / "known"
    known.mkdir()
    (known / "go").touch()
    await working.client.start("known", "probe", inputs_of(known))
    ended = await working.client.get_results("known", wait=LONG)
    assert ended.status is PrecomputeStatus.COMPLETED
    await working.client.start("k", "probe", inputs_of(tmp_path))
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


async def test_the_ledger_counts_what_became_of_each_run_and_step(working: Side, tmp_path: Path):
    client = working.client
    assert (await client.get_stats()).ledger is None
    await client.start("used", "noop", {"value": 1})
    await working.reaches("used", status="completed")
    await client.get_results("used")
    assert (await client.start("used", "noop", {"value": 1})).outcome == "reused"

    await client.start("cancelled", "probe", inputs_of(tmp_path))
    assert (await client.start("cancelled", "probe", inputs_of(tmp_path))).outcome == "joined"
    await working.reaches("cancelled", gated=RUNNING)
    await client.get_results("cancelled")
    await client.cancel("cancelled")

    await client.start("replaced", "noop", {"value": 1})
    await working.reaches("replaced", status="completed")
    await client.start("replaced", "noop", {"value": 2})
    await working.reaches("replaced", status="completed")

    await client.start("reported", "probe", inputs_of(tmp_path, 3))
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
        "cancelled": (1, 1),
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
