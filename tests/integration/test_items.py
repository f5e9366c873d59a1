"""Steps per item in real workers: shown as they end, handed on after kill -9, cancelled, memoised."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

from headstart import FailureReason, PrecomputeClient
from tests.support.item_pipelines import REFERENCES, began
from tests.support.processes import api, run_headstart, worker
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": REFERENCES,
    "HEADSTART_LEASE": "3",
}
NAMES = ["a", "bb", "bad", "ccc", "held-1", "held-2", "d", "e"]


async def until_ended(client: PrecomputeClient, key: str, items: int) -> None:
    async def ended() -> bool:
        report = (await client.get_results(key)).steps["rates"]
        return report.items is not None and report.items.ended == items

    await wait_until(ended)


async def command(*arguments: str, address: str) -> str:
    process = run_headstart(*arguments, "--address", address)
    try:
        await wait_until(lambda: not process.alive, 30)
        return process.output
    finally:
        process.stop()


async def test_items_are_shown_as_they_end_and_survive_the_worker(
    valkey: Valkey, tmp_path: Path
) -> None:
    inputs = {"directory": str(tmp_path), "carriers": NAMES}
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        PrecomputeClient(address) as client,
        worker(valkey.url, **SETTINGS) as doomed,
    ):
        await client.start("cart", "carriers", inputs)
        watching = asyncio.create_task(watched(client, "cart"))
        await until_ended(client, "cart", 6)
        results = await client.get_results("cart")
        progress = results.steps["rates"].items
        assert progress is not None
        assert (progress.total, progress.completed, progress.failed) == (8, 5, 1)
        assert "rates" in results.missing
        shown = {item.index: item for item in results.items("rates", int)}
        assert {n: (i.value, i.failure_reason) for n, i in shown.items()} == {
            **{n: (len(NAMES[n]), None) for n in (0, 1, 3, 6, 7)},
            2: (None, FailureReason.STEP_FAILED),
        }
        assert "6 of 8 items, 1 failed" in await command("get", "cart", address=address)
        doomed.send(signal.SIGKILL)
        async with worker(valkey.url, **SETTINGS):
            await wait_until(lambda: len(workers_of("held-1", tmp_path)) == 2, 30)
            assert len((await client.get_results("cart")).items("rates")) == 6
            (tmp_path / "open").touch()
            ended = await client.get_results("cart", wait=30)
        assert ended.steps["rates"].state == "completed"
        assert [item.value for item in ended.items("rates")] == [1, 2, None, 3, 6, 6, 1, 1]
        assert ended.custom["cheapest"] == 1
        assert ended.steps["rates"].items.completed == 7
        assert ended.partial_items == {}
        counted = Counter(name for name, _ in began(tmp_path) if not name.startswith("held"))
        assert counted == Counter(["a", "bb", "bad", "ccc", "d", "e"]), "each computed once"
        assert 6 in await watching, "a watcher saw the items before the step had ended"


def workers_of(item: str, directory: Path) -> set[int]:
    return {pid for name, pid in began(directory) if name == item}


async def watched(client: PrecomputeClient, key: str) -> list[int]:
    return [
        len(results.partial_items.get("rates", ())) async for results in client.watch_results(key)
    ]


async def test_a_cancelled_run_keeps_its_items_and_others_run_in_all_places(
    valkey: Valkey, tmp_path: Path
) -> None:
    inputs = {"directory": str(tmp_path), "carriers": ["a", "held"]}
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        PrecomputeClient(address) as client,
        worker(valkey.url, **SETTINGS) as process,
    ):
        await client.start("cart", "carriers", inputs)
        watching = run_headstart("watch", "cart", "--address", address)
        try:
            await until_ended(client, "cart", 1)
            await watching.says("rates: running 1 of 2 items")
            await client.cancel("cart")
            results = await client.get_results("cart")
            assert (results.status, [i.value for i in results.items("rates")]) == ("cancelled", [1])
            await watching.says("cancelled")
        finally:
            watching.stop()
        (tmp_path / "open").touch()
        # The worker goes on with other runs.
        await client.start("next", "carriers", inputs | {"carriers": ["bad"]})
        found = await client.get_results("next", wait=20)
        assert found.steps["rates"].error == "its only item failed: carrier away"
        assert (found.custom["cheapest"], found.steps["cheapest"].missing_needs) == (-1, ("rates",))
        await in_threads_and_processes(client, tmp_path)
        assert process.alive


async def in_threads_and_processes(client: PrecomputeClient, directory: Path) -> None:
    before = len(began(directory))
    inputs = {"directory": str(directory), "carriers": [f"c{number}" for number in range(20)]}
    await client.start("one", "everywhere", inputs)
    found = await client.get_results("one", wait=30)
    assert [i.value for i in found.items("in_processes")] == [f"C{n}!" for n in range(20)]
    await client.start("two", "everywhere", inputs | {"carriers": ["c3", "new", "c4"]})
    again = await client.get_results("two", wait=30)
    assert [i.value for i in again.items("memoised")] == ["c3", "new", "c4"]
    assert len(began(directory)) - before == 21, "two of three were remembered"
