"""Steps that make a worker's event loop stand still for good, in real workers."""

from __future__ import annotations

import signal

import pytest

from headstart import PrecomputeClient
from headstart_service.base import exit_codes
from tests.support.executors import REFERENCES
from tests.support.processes import alive, api, children, serving, worker
from tests.support.scrape import metrics_of, value
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": REFERENCES,
    "HEADSTART_BLOCK_LIMIT": "0.3",
    "HEADSTART_HANG_LIMIT": "1",
    "HEADSTART_LEASE": "3",
}


@pytest.mark.parametrize(
    ("kind", "culprit"),
    [("event", "stands_still"), ("callback", "_spin"), ("lock", "_keep_interpreter")],
)
async def test_a_worker_whose_loop_stands_still_ends_itself_with_its_stacks(
    valkey, tmp_path, kind, culprit
) -> None:
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **SETTINGS) as working,
        PrecomputeClient(address) as client,
    ):
        inputs = {"directory": str(tmp_path), "kind": kind, "times": 1}
        await client.start("still", "hang", inputs)
        assert await working.ended() == exit_codes.BLOCKED
        assert f"in {culprit}" in working.output
        assert "executors.py" in working.output
        if kind != "lock":  # where no line of Python runs any more
            assert "has stood still for 1 s" in working.output
            assert "under way: default/still" in working.output
        async with worker(valkey.url, **SETTINGS):
            results = await client.get_results("still", wait=30)
            assert results.custom == {"stands_still": 1}


async def test_a_worker_of_serve_that_stands_still_is_replaced_and_its_neighbours_complete(
    tmp_path,
) -> None:
    """Within two leases and the guard's limit, by the store's own times."""
    lease, limit = 6.0, 1.0
    settings = SETTINGS | {
        "HEADSTART_DATA_DIR": str(tmp_path / "data"),
        "HEADSTART_LEASE": f"{lease}",
        "HEADSTART_HANG_LIMIT": f"{limit}",
    }
    neighbours = [tmp_path / "neighbour-1", tmp_path / "neighbour-2"]
    async with serving(**settings) as (process, address), PrecomputeClient(address) as client:
        for each in neighbours:
            each.mkdir()
            await client.start(each.name, "held", {"directory": str(each)})
            await wait_until((each / "held").exists)
        directory = str(tmp_path)
        await client.start("still", "hang", {"directory": directory, "kind": "result", "times": 1})
        await wait_until((tmp_path / "tries-result").exists)
        for each in neighbours:
            (each / "go").touch()
        await client.start("beside", "beside", {"directory": directory})
        still = await client.get_results("still", wait=60)
        others = ("beside", *(each.name for each in neighbours))
        for results in (still, *[await client.get_results(key, wait=60) for key in others]):
            assert str(results.status) == "completed"
            # It has stood still since its first try at the earliest, which came after its start.
            took = results.completed_at - still.created_at
            assert took.total_seconds() <= 2 * lease + limit, results.key
        told = await metrics_of(process)
        assert value(told, "headstart_worker_hangs_total") == 1
        assert "because a step blocked it" in process.output


async def test_threads_that_loop_steps_keep_for_good_are_missed_by_nobody(valkey, tmp_path) -> None:
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **SETTINGS),
        PrecomputeClient(address) as client,
    ):
        inputs = {"directory": str(tmp_path)}
        keys = [f"loose-{number}" for number in range(40)]
        for key in keys:
            await client.start(key, "loose", inputs)
        for key in keys:
            assert (await client.get_results(key, wait=60)).custom == {}
        await client.start("beside", "beside", inputs)
        results = await client.get_results("beside", wait=60)
        assert results.custom["asks_thread"] == 0.01
        (tmp_path / "go").touch()


async def test_no_worker_outlives_its_serve_whatever_it_does(tmp_path) -> None:
    settings = SETTINGS | {"HEADSTART_DATA_DIR": str(tmp_path / "data")}
    settings |= {"HEADSTART_HANG_LIMIT": "0"}
    async with serving(**settings) as (process, address), PrecomputeClient(address) as client:
        inputs = {"directory": str(tmp_path), "kind": "lock", "times": 1}
        await client.start("still", "hang", inputs)
        tries = tmp_path / "tries-lock"
        await wait_until(lambda: tries.exists() and tries.read_text())
        pid = int(tries.read_text())
        assert pid in children(process.pid)
        process.send(signal.SIGKILL)
        await wait_until(lambda: not alive(pid))


async def test_a_second_signal_ends_a_worker_whatever_its_steps_do(valkey, tmp_path) -> None:
    settings = SETTINGS | {"HEADSTART_DRAIN": "60"}
    async with (
        api(valkey.url, **SETTINGS) as (_, address),
        worker(valkey.url, **settings) as working,
        PrecomputeClient(address) as client,
    ):
        inputs = {"directory": str(tmp_path), "kind": "busy", "times": 1}
        await client.start("busy", "hang", inputs)
        await wait_until((tmp_path / "tries-busy").exists)
        working.send(signal.SIGINT)
        await working.says("draining 1 runs")
        working.send(signal.SIGINT)
        assert await working.ended() == -signal.SIGINT
