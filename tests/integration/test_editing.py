"""A user who edits, keystroke by keystroke, costs what has changed and never reads what is stale."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from headstart import PrecomputeClient, Results, StepOrigin
from tests.support.editing import REFERENCES, Work, bridge_of
from tests.support.processes import api, worker
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TARGET = "pepper"
KEYSTROKES = ["castle of the king in the north"[:length] for length in range(1, 21)]
"""Twenty revisions."""
STEPS = ("read_anchor", "near_anchor", "read_target", "near_target", "bridge")
_numbers = itertools.count()


@dataclass(frozen=True)
class Site:
    """Two API replicas and a worker on one Redis, and a client of each replica."""

    work: Work
    clients: tuple[PrecomputeClient, PrecomputeClient]

    async def type(self, key: str, anchor: str, pipeline: str = "editing") -> int:
        """Start the run of one keystroke; gives its revision."""
        inputs = {"anchor": anchor, "target": TARGET}
        return (await self.clients[0].start(key, pipeline, inputs)).revision

    async def result(self, key: str, revision: int, reader: int = 0) -> Results:
        return await self.clients[reader].get_results(key, wait=30, min_revision=revision)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def processes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """All of it, shared by this module's tests."""
    work = Work(tmp_path_factory.mktemp("editing"))
    settings = {
        "HEADSTART_BRIDGING": "false",
        "HEADSTART_PIPELINES": REFERENCES,
        "HEADSTART_DRAIN": "1",
        **work.environment,
    }
    valkey = Valkey(tmp_path_factory.mktemp("valkey"))
    await valkey.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(valkey.kill)
        enter = stack.enter_async_context
        async with asyncio.TaskGroup() as starting:
            replicas = [starting.create_task(enter(api(valkey.url, **settings))) for _ in range(2)]
            starting.create_task(enter(worker(valkey.url, **settings)))
        first, second = [await enter(PrecomputeClient(r.result()[1])) for r in replicas]
        yield Site(work, (first, second))


@pytest.fixture
def site(processes: Site) -> Iterator[Site]:
    """As above, with nothing counted yet and an open gate."""
    processes.work.forget()
    yield processes
    processes.work.open_gate()


@pytest.fixture
def key() -> str:
    return f"game-{next(_numbers)}"


async def test_twenty_keystrokes_cost_one_final_run_and_what_was_in_flight(
    site: Site, key: str
) -> None:
    site.work.close_gate()
    for anchor in KEYSTROKES:
        revision = await site.type(key, anchor)
        # The next key is hit while this one's first step runs.
        await wait_until(lambda now=f"read_anchor {anchor}": now in site.work.lines("began"))
    site.work.open_gate()
    results = await site.result(key, revision)
    assert results.custom["bridge"] == bridge_of(KEYSTROKES[-1], TARGET)
    assert site.work.count("ended") == dict.fromkeys(STEPS, 1)
    # What was in flight when the next key was hit; of the target nothing was begun twice.
    in_flight = [f"read_anchor {anchor}" for anchor in KEYSTROKES[:-1]]
    assert sorted(site.work.lines("stopped")) == sorted(in_flight)
    assert site.work.count("began") == {**dict.fromkeys(STEPS, 1), "read_anchor": 20}
    assert results.steps["read_target"].origin is StepOrigin.KEPT
    assert results.steps["read_anchor"].origin is StepOrigin.COMPUTED


async def test_a_user_who_pauses_at_each_key_pays_for_what_the_key_changed(
    site: Site, key: str
) -> None:
    for anchor in KEYSTROKES:
        results = await site.result(key, await site.type(key, anchor))
        assert results.custom["bridge"] == bridge_of(anchor, TARGET)
    assert site.work.count("ended") == {
        **dict.fromkeys(("read_anchor", "near_anchor", "bridge"), 20),
        **dict.fromkeys(("read_target", "near_target"), 1),
    }
    assert {name: report.origin for name, report in results.steps.items()} == {
        **dict.fromkeys(("read_anchor", "near_anchor", "bridge"), "computed"),
        **dict.fromkeys(("read_target", "near_target"), "kept"),
    }


async def test_with_memos_what_was_typed_before_costs_nothing_under_any_key(
    site: Site, key: str
) -> None:
    # Typed, and taken back letter by letter.
    there_and_back = [*KEYSTROKES[:10], *reversed(KEYSTROKES[:9])]
    for anchor in there_and_back:
        results = await site.result(key, await site.type(key, anchor, "memoised"))
        assert results.custom["bridge"] == bridge_of(anchor, TARGET)
    once = {
        **dict.fromkeys(("read_anchor", "near_anchor", "bridge"), 10),
        **dict.fromkeys(("read_target", "near_target"), 1),
    }
    assert site.work.count("ended") == once
    assert results.steps["bridge"].origin is StepOrigin.MEMOISED
    other = f"{key}-of-another"
    results = await site.result(other, await site.type(other, KEYSTROKES[5], "memoised"))
    assert results.custom["bridge"] == bridge_of(KEYSTROKES[5], TARGET)
    assert {report.origin for report in results.steps.values()} == {StepOrigin.MEMOISED}
    assert site.work.count("ended") == once


async def test_a_restart_computes_everything_anew(site: Site, key: str) -> None:
    await site.result(key, await site.type(key, "restarted", "memoised"))
    before = site.work.count("ended")
    inputs = {"anchor": "restarted", "target": TARGET}
    started = await site.clients[0].start(key, "memoised", inputs, restart=True)
    results = await site.result(key, started.revision)
    assert site.work.count("ended") - before == dict.fromkeys(STEPS, 1)
    assert {report.origin for report in results.steps.values()} == {StepOrigin.COMPUTED}


async def test_no_replica_gives_a_revision_that_is_stale(site: Site, key: str) -> None:
    """Readers on both replicas ask all the time while twenty keys are hit, each at some pause."""
    newest = 0
    over = asyncio.Event()
    anchors: dict[int, str] = {}
    read: list[tuple[int, int, bool]] = []

    async def reader(replica: int, *, floor: bool) -> None:
        while not over.is_set():
            asked = newest
            results = await site.clients[replica].get_results(
                key, wait=0.01, min_revision=asked if floor else 0
            )
            bridge = (results.custom or {}).get("bridge")
            if bridge is not None:
                assert bridge == bridge_of(anchors[results.revision], TARGET)
            read.append((asked, results.revision, floor or replica == 0))

    anchors[1] = KEYSTROKES[0]
    newest = await site.type(key, KEYSTROKES[0])
    async with asyncio.TaskGroup() as group:
        for replica, floor in itertools.product((0, 1), (False, True)):
            group.create_task(reader(replica, floor=floor))
        for number, anchor in enumerate(KEYSTROKES[1:], 2):
            if number % 3:  # some end, and are in the near-caches, before the next key is hit
                for replica in (0, 1):
                    await site.result(key, newest, replica)
            anchors[number] = anchor
            newest = await site.type(key, anchor)
        last = [await site.result(key, newest, replica) for replica in (0, 1)]
        over.set()
    assert [results.custom["bridge"] for results in last] == [bridge_of(anchor, TARGET)] * 2
    # The replica that answered the start, and whoever names the revision, never get an older one.
    assert all(revision >= asked for asked, revision, sure in read if sure)
    assert newest == 20

    async def current(replica: int) -> bool:
        return (await site.clients[replica].get_results(key)).revision == newest

    for replica in (0, 1):
        await wait_until(lambda replica=replica: current(replica))
