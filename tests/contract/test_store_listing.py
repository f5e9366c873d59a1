from __future__ import annotations

from dataclasses import replace

import pytest

from headstart_service.domain import FailureReason, RunKey, RunSummary, Status
from headstart_service.domain.errors import RunNotFound
from headstart_service.store import run_listing
from tests.contract.backend import Backend, plan

ALL = list(Status)
SIMILAR = ["a", "a-b", "a.b", "a_b", "aa", "b", "A", "a:", "a:b", "a:b:", "a::", ":", ":a"]


async def _pages(
    backend: Backend, namespace: str, statuses: list[Status], size: int
) -> list[list[RunSummary]]:
    pages: list[list[RunSummary]] = []
    after = None
    while page := await backend.store.list(namespace, statuses, after, size):
        pages.append(page)
        after = page[-1].key
    return pages


async def _mixed(backend: Backend, number: int = 20) -> dict[RunKey, Status]:
    """Runs of every status."""
    expected = {}
    for i in range(number):
        key = RunKey("games", f"game-{i}")
        match i % 5:
            case 0:
                await backend.complete(key)
                expected[key] = Status.COMPLETED
            case 1:
                claim = await backend.begin(key)
                await backend.queue.finish(claim.lease, [], Status.FAILED, "broken")
                expected[key] = Status.FAILED
            case 2:
                await backend.begin(key)
                expected[key] = Status.IN_PROGRESS
            case 3:
                await backend.begin(key)
                await backend.store.cancel(key)
                expected[key] = Status.CANCELLED
    for i in range(4, number, 5):  # last, or the claims above would take these
        await backend.start(RunKey("games", f"game-{i}"))
        expected[RunKey("games", f"game-{i}")] = Status.PENDING
    return expected


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_pages_give_every_run_once_and_are_full_until_the_last(
    store_backend: Backend, size: int
) -> None:
    expected = await _mixed(store_backend)
    pages = await _pages(store_backend, "", ALL, size)
    found = [(summary.key, summary.status) for page in pages for summary in page]
    assert dict(found) == expected
    assert len(found) == len(expected)
    assert all(len(page) == size for page in pages[:-1])


async def test_a_page_does_not_move_when_runs_come_and_go_before_it(
    store_backend: Backend,
) -> None:
    keys = store_backend.neighbours(6)
    ordered = sorted(keys, key=lambda key: key.key.encode())
    await store_backend.complete(*ordered[1:])
    first = await store_backend.store.list("games", ALL, None, 3)
    assert [summary.key for summary in first] == ordered[1:4]
    await store_backend.start(ordered[0])
    await store_backend.store.start(ordered[2], plan("d2"), 60, restart=False)
    second = await store_backend.store.list("games", ALL, first[-1].key, 3)
    assert [summary.key for summary in second] == ordered[4:]


@pytest.mark.parametrize(
    "wanted", [*([status] for status in Status), [Status.FAILED, Status.CANCELLED]]
)
async def test_a_list_gives_only_the_statuses_wanted(
    store_backend: Backend, wanted: list[Status]
) -> None:
    expected = await _mixed(store_backend, 10)
    pages = await _pages(store_backend, "games", wanted, 3)
    found = {summary.key for page in pages for summary in page}
    assert found == {key for key, status in expected.items() if status in wanted}


async def test_a_list_has_all_but_the_results(store_backend: Backend) -> None:
    [key] = store_backend.neighbours(1)
    claim = await store_backend.begin(key)
    reason = FailureReason.TIMED_OUT
    await store_backend.queue.finish(claim.lease, [], Status.FAILED, "first: broken", reason)
    [listed] = await store_backend.store.list("games", ALL, None, 10)
    assert listed == (await store_backend.store.status(key)).summary
    assert listed == (await store_backend.store.read(key)).summary
    assert listed == (await store_backend.store.inspect(key)).snapshot.summary
    assert (listed.error, listed.failure_reason) == ("first: broken", reason)
    assert listed.created_us <= listed.started_us <= listed.completed_us < listed.expires_us


async def test_a_namespace_lists_and_counts_its_own_runs_only(store_backend: Backend) -> None:
    for each in SIMILAR:
        for number in range(3):
            await store_backend.start(RunKey(each, f"{number}"))
    for each in SIMILAR:
        listed = await store_backend.store.list(each, ALL, None, 100)
        assert {summary.key for summary in listed} == {RunKey(each, f"{n}") for n in range(3)}
        stats = await store_backend.store.stats(each)
        assert stats.counts == {Status.PENDING: 3}
        assert stats.ledger is not None
        assert stats.ledger.starts == 3, each


# A namespace that continues another's name with '-', '.' or a digit is greater than it, but its
# members are smaller: all of these characters come before the ':' behind a namespace.
@pytest.mark.promise("Forged page tokens show nothing of other namespaces", "checked in the store")
@pytest.mark.parametrize("other", ["a", "b-", "b.c", "b0", "c", "B", "b:", "b:c", "a:b"])
async def test_a_position_in_another_namespace_shows_nothing_of_it(
    store_backend: Backend, other: str
) -> None:
    after = RunKey(other, "0")
    for namespace in ("b", other):
        for number in range(10):
            await store_backend.start(RunKey(namespace, f"{number}"))
    listed = await store_backend.store.list("b", ALL, after, 100)
    assert {summary.key.namespace for summary in listed} <= {"b"}


async def _all_pages(backend: Backend, namespace: str, size: int, **filters: str) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        page = await backend.store.page(namespace, ALL, after, size, **filters)
        assert len(page.runs) <= size
        found += [run.key.key for run in page.runs]
        if page.after is None:
            return found
        after = page.after


PREFIXED = ["a", "ab", "aé", "aê", "a;", "a:", "b", "é", "a\U0010ffff", "a\U0010ffffz"]


@pytest.mark.parametrize("size", [1, 3, 100])
async def test_a_prefix_of_keys_lists_the_keys_that_begin_so(
    store_backend: Backend, size: int
) -> None:
    for namespace in ("n", "n-"):
        for key in PREFIXED:
            await store_backend.start(RunKey(namespace, key))
    for prefix in ("", *PREFIXED, "x", "a\U0010fffe"):
        expected = [key for key in PREFIXED if key.startswith(prefix)]
        found = await _all_pages(store_backend, "n", size, key_prefix=prefix)
        assert sorted(found) == sorted(expected), prefix


async def test_a_position_in_front_of_a_prefix_shows_nothing_in_front_of_it(
    store_backend: Backend,
) -> None:
    for key in ("a", "b1", "b2", "c"):
        await store_backend.start(RunKey("n", key))
    page = await store_backend.store.page("n", ALL, RunKey("n", "a"), 9, key_prefix="b")
    assert {run.key.key for run in page.runs} <= {"b1", "b2"}


@pytest.mark.parametrize("size", [1, 4, 100])
async def test_a_pipeline_lists_its_own_runs_page_by_page(
    store_backend: Backend, size: int
) -> None:
    other = replace(plan(), pipeline="other")
    for number in range(24):
        chosen = other if number % 5 == 0 else plan()
        await store_backend.start(RunKey("games", f"{number:02}"), chosen)
    found = await _all_pages(store_backend, "games", size, pipeline="other")
    assert sorted(found) == ["00", "05", "10", "15", "20"]
    found = await _all_pages(store_backend, "games", size, pipeline="other", key_prefix="1")
    assert sorted(found) == ["10", "15"]
    assert await _all_pages(store_backend, "games", size, pipeline="none") == []


async def test_a_page_of_a_rare_pipeline_ends_early_and_goes_on(
    store_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_listing, "PASSED", 2)
    monkeypatch.setattr(run_listing, "COMPARED", 3)
    keys = sorted(store_backend.neighbours(7))
    rare = replace(plan(), pipeline="rare")
    for key in keys:
        await store_backend.start(key, rare if key == keys[-1] else plan())
    first = await store_backend.store.page("games", ALL, None, 10, pipeline="rare")
    assert (list(first.runs), first.after) == ([], keys[3])
    assert await _all_pages(store_backend, "games", 10, pipeline="rare") == [keys[-1].key]


async def test_stats_equal_the_records(store_backend: Backend) -> None:
    expected = await _mixed(store_backend)
    stats = await store_backend.store.stats("")
    assert stats.counts == dict.fromkeys(Status, 4)
    assert stats.queued_jobs == 4
    for key, status in expected.items():
        assert (await store_backend.record(key))[b"status"].decode() == status
    assert (await store_backend.store.stats("elsewhere")).counts == {}


async def test_pending_runs_are_counted_by_namespace(store_backend: Backend) -> None:
    store = store_backend.store
    await store_backend.complete(RunKey("done", "k"))
    # A colon ends the namespace in a member's name, and one of the name becomes a semicolon. The
    # members of `a-b` and `a0` come before those of `a`.
    wanted = {"a": 3, "a:b": 2, "a-b": 1, "a0": 1, "ab": 1, "z": 7}
    for namespace, count in wanted.items():
        for number in range(count):
            await store.start(RunKey(namespace, f"k:{number}"), plan(), 60, restart=False)
    stats = await store.stats("")
    assert stats.pending == wanted
    assert stats.largest_share == 7 / 15
    assert (await store.stats("a")).pending == {"a": 3}
    assert (await store.stats("none")).largest_share == 0


async def test_the_queues_lag_stays_known_whatever_becomes_of_runs(store_backend: Backend) -> None:
    """Workers are scaled by it, and Redis gives it up when undelivered entries are deleted."""
    expected = await _mixed(store_backend)
    waiting = [key for key, status in expected.items() if status is Status.PENDING]
    await store_backend.store.cancel(waiting[0])
    await store_backend.start(waiting[0])
    await store_backend.start(waiting[1], plan("d2"))
    lag = 0
    for partition in range(store_backend.partitions):
        jobs = f"headstart:{{{partition}}}:jobs"
        for group in await store_backend.raw.xinfo_groups(jobs):
            assert group["lag"] is not None
            lag += group["lag"]
    assert lag == 6


async def test_an_unknown_run_is_not_found(store_backend: Backend) -> None:
    unknown = RunKey("games", "unknown")
    for ask in (store_backend.store.read, store_backend.store.status, store_backend.store.cancel):
        with pytest.raises(RunNotFound):
            await ask(unknown)
