"""Steps that callers hand in: what is kept, what is not, and who is first."""

from __future__ import annotations

import asyncio

import pytest

from headstart_service.domain import Report, RunKey, Status, StepRecord, StepState
from headstart_service.domain.errors import RunNotFound, StepsReported
from tests.contract.backend import Backend, done, first_of, plan, running

KEY = RunKey("games", "game-1")
COMPLETED, RUNNING, PENDING = StepState.COMPLETED, StepState.RUNNING, StepState.PENDING


async def report(
    backend: Backend,
    name: str,
    revision: int = 1,
    runs_class: str = "probe@v1",
    needs: tuple[str, ...] = (),
    run: str = "",
) -> Report:
    """Report a step of this run, or else of the run that the key has now."""
    run = run or (await backend.store.status(KEY)).run
    return await backend.store.report(KEY, run, revision, runs_class, needs, theirs(name))


def theirs(name: str) -> StepRecord:
    return done(name, f"<{name} of a caller>".encode())


@pytest.mark.parametrize("status", [Status.PENDING, Status.IN_PROGRESS])
async def test_a_step_that_has_not_ended_is_kept_and_announced(
    store_backend: Backend, status: Status
) -> None:
    await store_backend.start(KEY)
    if status is Status.IN_PROGRESS:
        claim = await store_backend.claim()
        await store_backend.queue.commit(claim.lease, [], [running("first")])
    async with store_backend.announcements() as heard:
        assert await report(store_backend, "first") == Report(True, COMPLETED)
        told = await first_of("reported", heard)
    assert (told.key, told.steps) == (KEY, ("first",))
    assert told.run == (await store_backend.store.status(KEY)).run
    found = await store_backend.store.read(KEY)
    assert found.states == {"first": COMPLETED, "second": PENDING}
    assert found.body == b"<first of a caller>"


async def test_a_worker_that_comes_later_finds_it_ended(store_backend: Backend) -> None:
    await store_backend.start(KEY)
    await report(store_backend, "first")
    claim = await store_backend.claim()
    assert claim.ended == {"first": theirs("first")}


async def test_a_worker_does_not_overwrite_it_and_is_told(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    await report(store_backend, "first")
    for ended, shown in (([done("first")], []), ([], [running("first")])):
        with pytest.raises(StepsReported) as caught:
            await store_backend.queue.commit(claim.lease, ended, shown)
        assert caught.value.records == (theirs("first"),)
    with pytest.raises(StepsReported):
        await store_backend.queue.finish(
            claim.lease, [done("first"), done("second")], Status.COMPLETED, ""
        )
    found = await store_backend.store.read(KEY)
    assert found.summary.status is Status.IN_PROGRESS
    assert found.states == {"first": COMPLETED, "second": PENDING}, "all of it or none"
    await store_backend.queue.finish(claim.lease, [done("second")], Status.COMPLETED, "")
    found = await store_backend.store.read(KEY)
    assert found.summary.status is Status.COMPLETED
    assert sorted(found.body.split(b">")) == [b"", b"<first of a caller", b"<second"]


async def test_whoever_is_second_changes_nothing(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.commit(claim.lease, [done("first")], [running("second")])
    before = store_backend.deployment.dump()
    assert await report(store_backend, "first") == Report(False, COMPLETED)
    assert store_backend.deployment.dump() == before
    assert await report(store_backend, "second") == Report(True, COMPLETED)
    assert await report(store_backend, "second") == Report(False, COMPLETED)


async def test_a_step_is_refused_while_what_it_needs_has_no_result(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    await store_backend.queue.commit(claim.lease, [], [running("first")])
    before = store_backend.deployment.dump()
    assert await report(store_backend, "second", needs=("first",)) == Report(False, PENDING)
    assert store_backend.deployment.dump() == before
    await report(store_backend, "first")
    assert await report(store_backend, "second", needs=("first",)) == Report(True, COMPLETED)


async def test_another_run_revision_pipeline_or_step_is_refused(store_backend: Backend) -> None:
    await store_backend.start(KEY)
    first = (await store_backend.store.status(KEY)).run
    store_backend.deployment.wipe()
    await store_backend.start(KEY, plan("d2", {"first": "f2", "second": "s2"}))
    before = store_backend.deployment.dump()
    assert await report(store_backend, "first", run=first) == Report(False, PENDING)
    assert await report(store_backend, "first", revision=3) == Report(False, PENDING)
    assert await report(store_backend, "first", runs_class="other@v1") == Report(False, PENDING)
    assert await report(store_backend, "third") == Report(False, None)
    assert await report(store_backend, "irst") == Report(False, None)
    assert store_backend.deployment.dump() == before


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_a_run_that_has_ended_stays_as_it_is(store_backend: Backend, status: Status) -> None:
    claim = await store_backend.begin(KEY)
    if status is Status.CANCELLED:
        await store_backend.store.cancel(KEY)
    else:
        await store_backend.queue.finish(claim.lease, [done("first")], status, "")
    before = store_backend.deployment.dump()
    assert (await report(store_backend, "second")).accepted is False
    assert store_backend.deployment.dump() == before


async def test_an_unknown_key_is_not_found(store_backend: Backend) -> None:
    with pytest.raises(RunNotFound):
        await report(store_backend, "first")


async def test_of_a_worker_and_callers_one_is_first(store_backend: Backend) -> None:
    claim = await store_backend.begin(KEY)
    for name in ("first", "second"):
        reports = [report(store_backend, name) for _ in range(5)]
        commit = store_backend.queue.commit(claim.lease, [done(name)], [])
        *answers, written = await asyncio.gather(*reports, commit, return_exceptions=True)
        accepted = [answer.accepted for answer in answers]  # type: ignore[union-attr]
        assert accepted.count(True) + (written is None) == 1
        body = (await store_backend.store.read(KEY)).body
        assert (f"<{name} of a caller>".encode() in body) is (written is not None)
