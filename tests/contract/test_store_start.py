from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from headstart_service.domain import (
    Cancelled,
    Outcome,
    RunKey,
    Started,
    Status,
    StepRecord,
    StepState,
)
from headstart_service.domain.errors import RunNotFound
from tests.contract.backend import RESULT, Backend, done, plan, running

KEY = RunKey("games", "game-1")

ODD_KEYS = [
    "a b",
    "a:b:c",
    ":",
    "{0}",
    "}{",
    "ключ-🔑",
    "a,b=c",
    "-",
    "'\"\\",
    "%s %d%%",
    "*?[a-z]",
    "s:first",
    "(x",
    "k" * 256,
]


async def test_the_first_start_is_started_and_pending(store_backend: Backend) -> None:
    started = await store_backend.store.start(KEY, plan(), 60, restart=False)
    assert started == Started(Outcome.STARTED, Status.PENDING, 1)
    found = await store_backend.store.read(KEY)
    assert found.summary.status is Status.PENDING
    assert found.summary.pipeline == "probe"
    assert found.states == {"first": StepState.PENDING, "second": StepState.PENDING}
    assert found.body == b""


async def test_starting_a_run_that_has_not_ended_joins_it(store_backend: Backend) -> None:
    await store_backend.start(KEY)
    joined = await store_backend.store.start(KEY, plan(), 60, restart=False)
    assert joined == Started(Outcome.JOINED, Status.PENDING, 1)
    await store_backend.claim()
    joined = await store_backend.store.start(KEY, plan(), 60, restart=False)
    assert joined == Started(Outcome.JOINED, Status.IN_PROGRESS, 1)
    assert await store_backend.jobs() == []


async def test_a_result_lives_as_long_as_the_most_patient_who_joined_wants(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY, ttl=100)
    await store_backend.store.start(KEY, plan(), 500, restart=False)
    await store_backend.store.start(KEY, plan(), 50, restart=False)
    await store_backend.queue.finish(claim.lease, [], Status.COMPLETED, "")
    assert 490 < await store_backend.pttl(KEY) <= 500.001


async def test_joining_keeps_a_run_from_expiring_before_it_was_worked_on(
    store_backend: Backend,
) -> None:
    await store_backend.start(KEY)
    await store_backend.redis("PEXPIRE", store_backend.keys_of(KEY).record(KEY), 9000)
    await store_backend.start(KEY)
    assert await store_backend.pttl(KEY) > 1000


async def test_fifty_starts_at_once_start_one_run(store_backend: Backend) -> None:
    starts = (store_backend.store.start(KEY, plan(), 60, restart=False) for _ in range(50))
    outcomes = Counter(started.outcome for started in await asyncio.gather(*starts))
    assert outcomes == {Outcome.STARTED: 1, Outcome.JOINED: 49}
    assert len(await store_backend.jobs()) == 1


async def test_a_completed_run_is_reused_and_lives_longer(store_backend: Backend) -> None:
    await store_backend.complete(KEY, ttl=60)
    reused = await store_backend.store.start(KEY, plan(), 600, restart=False)
    assert reused == Started(Outcome.REUSED, Status.COMPLETED, 1)
    assert (await store_backend.store.read(KEY)).body == RESULT
    assert 590 < await store_backend.pttl(KEY) <= 600.001
    assert await store_backend.jobs() == []


async def test_reusing_never_shortens_a_life(store_backend: Backend) -> None:
    await store_backend.complete(KEY, ttl=600)
    await store_backend.store.start(KEY, plan(), 60, restart=False)
    assert 590 < await store_backend.pttl(KEY) <= 600.001


async def test_a_reused_result_is_evicted_after_those_that_were_not_asked_for_again(
    store_backend: Backend,
) -> None:
    first, second, third, newcomer = store_backend.neighbours(4)
    store = store_backend.new_store(max_records=3 * store_backend.partitions)
    await store_backend.complete(first, second, third)
    await store.read(first)
    await store.start(first, plan(), 60, restart=False)
    await store.start(newcomer, plan(), 60, restart=False)
    assert await store_backend.kept([first, second, third]) == [first, third]


async def test_a_reused_result_ages_from_when_it_was_asked_for(store_backend: Backend) -> None:
    keys = store_backend.neighbours(3)
    store = store_backend.new_store(max_records=3 * store_backend.partitions)
    await store_backend.complete(*keys)
    await store_backend.start(keys[0])
    left = []
    for newcomer in store_backend.neighbours(3, name="new"):
        await store.start(newcomer, plan(), 60, restart=False)
        left.append(await store_backend.kept(keys))
    assert left == [[keys[0], keys[2]], [keys[0]], []]


async def test_a_reused_result_that_is_read_again_goes_first_again(store_backend: Backend) -> None:
    keys = store_backend.neighbours(2)
    store = store_backend.new_store(max_records=2 * store_backend.partitions)
    await store_backend.complete(*keys)
    await store.read(keys[1])
    await store_backend.start(keys[1])
    await store.read(keys[1])
    [newcomer] = store_backend.neighbours(1, name="new")
    await store.start(newcomer, plan(), 60, restart=False)
    assert await store_backend.kept(keys) == [keys[0]]


@pytest.mark.parametrize("alive", [True, False])
async def test_other_inputs_replace_a_run_with_the_next_revision(
    store_backend: Backend, *, alive: bool
) -> None:
    if alive:
        await store_backend.begin(KEY)
    else:
        await store_backend.complete(KEY)
    replaced = await store_backend.store.start(KEY, plan("d2"), 60, restart=False)
    assert replaced == Started(Outcome.REPLACED, Status.PENDING, 2)


async def test_a_replaced_run_keeps_the_steps_whose_own_inputs_are_unchanged(
    store_backend: Backend,
) -> None:
    await store_backend.complete(KEY)
    other = plan("d2", {"first": "f1", "second": "s2", "third": "t1"})
    await store_backend.store.start(KEY, other, 60, restart=False)
    found = await store_backend.store.read(KEY)
    assert found.states == {
        "first": StepState.COMPLETED,
        "second": StepState.PENDING,
        "third": StepState.PENDING,
    }
    assert found.body == b"<first>"
    claim = await store_backend.claim()
    assert claim.ended == {"first": done("first")}


async def test_a_replaced_run_keeps_no_step_that_ran_failed_or_was_skipped(
    store_backend: Backend,
) -> None:
    steps = dict.fromkeys(("ran", "failed", "skipped"), "same")
    await store_backend.start(KEY, plan("d1", steps))
    claim = await store_backend.claim()
    ended = [
        StepRecord("failed", StepState.FAILED, b"f"),
        StepRecord("skipped", StepState.SKIPPED, b"s"),
    ]
    await store_backend.queue.commit(claim.lease, ended, [running("ran")])
    await store_backend.start(KEY, plan("d2", steps))
    found = await store_backend.store.read(KEY)
    assert set(found.states.values()) == {StepState.PENDING}
    assert found.body == b""


async def test_replacing_takes_the_old_job_off_the_queue(store_backend: Backend) -> None:
    await store_backend.begin(KEY)
    await store_backend.start(KEY, plan("d2"))
    assert (await store_backend.store.stats("")).queued_jobs == 1
    at_once = store_backend.new_queue(lease=0)
    for partition in range(store_backend.partitions):
        assert await at_once.lost_jobs(partition, "w2", 10) == []


async def test_a_failed_run_is_started_anew_and_keeps_what_it_completed(
    store_backend: Backend,
) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.finish(claim.lease, [done("first")], Status.FAILED, "second: broken")
    again = await store_backend.store.start(KEY, plan(), 60, restart=False)
    assert again == Started(Outcome.STARTED, Status.PENDING, 2)
    found = await store_backend.store.read(KEY)
    assert found.body == b"<first>"
    assert found.summary.error == ""
    assert found.summary.completed_us == 0


async def test_a_cancelled_run_is_started_anew(store_backend: Backend) -> None:
    await store_backend.start(KEY)
    await store_backend.store.cancel(KEY)
    again = await store_backend.store.start(KEY, plan(), 60, restart=False)
    assert again == Started(Outcome.STARTED, Status.PENDING, 2)


@pytest.mark.parametrize("digest", ["d1", "d2"])
async def test_a_restart_recomputes_every_step(store_backend: Backend, digest: str) -> None:
    await store_backend.complete(KEY)
    again = await store_backend.store.start(KEY, plan(digest), 60, restart=True)
    assert again.revision == 2
    assert (again.outcome is Outcome.REPLACED) == (digest == "d2")
    assert (await store_backend.store.read(KEY)).body == b""
    claim = await store_backend.claim()
    assert claim.ended == {}


async def test_a_restart_fences_off_a_run_that_has_not_ended(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    again = await store_backend.store.start(KEY, plan(), 60, restart=True)
    assert again == Started(Outcome.STARTED, Status.PENDING, 2)
    assert await store_backend.queue.renew([claim.lease], "w1") == [claim.lease]


async def _repeat(backend: Backend, digest: str = "d1", request_id: str = "r1") -> Started:
    wanted = plan(digest)
    return await backend.store.start(KEY, wanted, 60, restart=True, request_id=request_id)


async def test_a_repeated_restart_answers_as_the_first_whatever_has_become_of_the_run(
    store_backend: Backend,
) -> None:
    await store_backend.complete(KEY)
    assert await _repeat(store_backend) == Started(Outcome.STARTED, Status.PENDING, 2)
    assert await _repeat(store_backend) == Started(Outcome.STARTED, Status.PENDING, 2)
    claim = await store_backend.claim()
    assert await _repeat(store_backend) == Started(Outcome.STARTED, Status.IN_PROGRESS, 2)
    await store_backend.queue.finish(claim.lease, [done("first")], Status.COMPLETED, "")
    before = await store_backend.store.read(KEY)
    assert await _repeat(store_backend) == Started(Outcome.STARTED, Status.COMPLETED, 2)
    after = await store_backend.store.read(KEY)
    assert (after.run, after.body) == (before.run, before.body)
    assert await _repeat(store_backend, request_id="r2") == Started(
        Outcome.STARTED, Status.PENDING, 3
    )
    await store_backend.store.cancel(KEY)
    again = await store_backend.store.start(KEY, plan(), 60, restart=False, request_id="r2")
    assert again == Started(Outcome.STARTED, Status.CANCELLED, 3), "an ended run is no new start"


async def test_a_repetition_is_of_one_request_id_one_run_and_the_same_inputs(
    store_backend: Backend,
) -> None:
    await store_backend.start(KEY)
    assert await _repeat(store_backend, "d2") == Started(Outcome.REPLACED, Status.PENDING, 2)
    assert await _repeat(store_backend, "d2") == Started(Outcome.REPLACED, Status.PENDING, 2)
    joined = await store_backend.store.start(KEY, plan("d2"), 60, restart=False, request_id="r9")
    assert joined == Started(Outcome.JOINED, Status.PENDING, 2)
    assert (await _repeat(store_backend, "d2")).revision == 2, "a start that joins is no new run"
    assert await _repeat(store_backend, "d1") == Started(Outcome.REPLACED, Status.PENDING, 3)
    assert await _repeat(store_backend, "d2") == Started(Outcome.REPLACED, Status.PENDING, 4)
    assert (await store_backend.store.start(KEY, plan("d2"), 60, restart=True)).revision == 5
    assert (await _repeat(store_backend, "d2")).revision == 6, "the last run's alone is known"


async def test_restarts_that_arrive_together_begin_one_run(store_backend: Backend) -> None:
    answers = await asyncio.gather(*(_repeat(store_backend) for _ in range(20)))
    assert set(answers) == {Started(Outcome.STARTED, Status.PENDING, 1)}


async def test_a_late_cancel_spares_a_newer_revision(store_backend: Backend) -> None:
    await store_backend.start(KEY)
    await store_backend.store.start(KEY, plan(), 60, restart=True)
    assert await store_backend.store.cancel(KEY, 1) == Cancelled(False, Status.PENDING, 2)
    assert await store_backend.store.cancel(KEY, 3) == Cancelled(False, Status.PENDING, 2)
    assert await store_backend.store.cancel(KEY, 2**63 - 1) == Cancelled(False, Status.PENDING, 2)
    assert await store_backend.store.cancel(KEY, 2) == Cancelled(True, Status.CANCELLED, 2)
    assert await store_backend.store.cancel(KEY, 2) == Cancelled(False, Status.CANCELLED, 2)


async def test_the_same_key_in_two_namespaces_is_two_runs(store_backend: Backend) -> None:
    other = RunKey("forms", KEY.key)
    await store_backend.complete(KEY)
    started = await store_backend.store.start(other, plan(), 60, restart=False)
    assert started.outcome is Outcome.STARTED
    assert (await store_backend.store.read(other)).body == b""


async def test_a_key_may_be_any_text(store_backend: Backend) -> None:
    keys = [RunKey("games", name) for name in ODD_KEYS]
    for number, key in enumerate(keys):
        await store_backend.start(key)
        claim = await store_backend.claim()
        assert claim.lease.job.key == key
        result = done("first", f"<{number}>".encode())
        await store_backend.queue.finish(claim.lease, [result], Status.COMPLETED, "")
    for number, key in enumerate(keys):
        assert (await store_backend.store.read(key)).body == f"<{number}>".encode()
        assert (await store_backend.store.cancel(key)).status is Status.COMPLETED
        with pytest.raises(RunNotFound):
            await store_backend.store.read(RunKey("games", key.key[:-1] + "!"))
    listed = []
    while page := await store_backend.store.list(
        "games", list(Status), listed[-1] if listed else None, 1
    ):
        listed += [summary.key for summary in page]
    assert sorted(listed, key=str) == sorted(keys, key=str)
