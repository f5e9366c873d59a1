"""Forks in one way after another, as its arguments say; prints what came of each child."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import grpc.aio

from headstart import BlockingClient, PrecomputeClient
from tests.support.forking import CHILDREN, PATIENT
from tests.support.forking.calls import client, meet, use_all, use_none

MEETING = Path(os.environ["MEETING"])


def child(use: Callable[[], str], leave: Callable[[], object] = sys.exit) -> int:
    """Fork a process that calls `use`, and ends as a script does."""
    if pid := os.fork():
        return pid
    os.write(1, f"{use()}\n".encode())  # at once: lines of several children do not mix
    leave()
    raise AssertionError("it has left")


def children(use: Callable[[], str]) -> None:
    """Fork all children, then await them. Raises if one crashed or hangs."""
    awaited([child(use) for _ in range(CHILDREN)])


def awaited(pids: list[int]) -> None:
    """Await children. Raises if one crashed or hangs."""
    ends = time.monotonic() + 3 * PATIENT
    for pid in pids:
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            assert time.monotonic() < ends, "a child hangs"
            time.sleep(0.01)
        assert ended[1] == 0, ended


def met() -> tuple[int, str]:
    return meet(MEETING), use_all()


def pool() -> None:
    """A pool of processes, as a web worker or a script has one."""
    use_all()
    with ProcessPoolExecutor(CHILDREN, multiprocessing.get_context("fork")) as executor:
        tasks = [executor.submit(met) for _ in range(CHILDREN)]
        use_all()
        for task in tasks:
            print(task.result()[1])
    use_all()


def busy() -> None:
    """Threads that go on calling, and one long wait, while others are forked."""
    use_all()
    client.start("slow", "slow", {})
    calls, over = 0, threading.Event()

    def work() -> None:
        nonlocal calls
        while not over.is_set():
            use_all()
            calls += 1

    waited: list[object] = []
    wait = threading.Thread(
        target=lambda: waited.append(client.get_results("slow", wait=PATIENT).missing)
    )
    workers = [threading.Thread(target=work) for _ in range(2)]
    for thread in (wait, *workers):
        thread.start()
    children(use_all)
    before = calls
    while calls == before:
        assert all(thread.is_alive() for thread in workers)
        time.sleep(0.01)
    over.set()
    for thread in (wait, *workers):
        thread.join()
    assert waited == [()], waited


async def loop() -> None:
    """A loop that awaits calls and a watch while another thread forks, then forks itself."""
    async with PrecomputeClient() as own:
        await own.start("slow", "slow", {})
        waiting = asyncio.create_task(own.get_results("slow", wait=PATIENT))
        watching = asyncio.create_task(watch(own))
        await asyncio.sleep(0)
        context = multiprocessing.get_context("fork")
        for _ in range(2):
            with ProcessPoolExecutor(CHILDREN // 2, context) as executor:
                # The executor forks in the thread that submits.
                tasks = await asyncio.to_thread(
                    lambda pool=executor: [pool.submit(use_all) for _ in range(CHILDREN // 2)]
                )
                for task in tasks:
                    print(await asyncio.wrap_future(task))
        assert (await waiting).missing == ()
        assert await watching == ()
        with ProcessPoolExecutor(1, context) as executor:  # in this very thread, without calls
            assert await asyncio.wrap_future(executor.submit(use_all)) == "works"
        assert (await own.get_results("slow")).missing == ()


async def beside() -> None:
    """Threads that a loop begins, and that fork beside each other; a server hangs meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = BlockingClient(f"127.0.0.1:{silent.getsockname()[1]}")
        await asyncio.to_thread(hanging.start_or_skip, "page", "text", {})
        await fork_beside()
        await asyncio.to_thread(hanging.close)


async def fork_beside() -> None:
    async with PrecomputeClient() as own:
        await own.start("page", "text", {})
        forks = (asyncio.to_thread(child, use_all, lambda: os._exit(0)) for _ in range(CHILDREN))
        awaited(await asyncio.gather(*forks))
        assert await own.get_status("page")


async def watch(own: PrecomputeClient) -> tuple[str, ...]:
    async for results in own.watch_results("slow"):
        missing = results.missing
    return missing


def foreign() -> None:
    """Another user of grpc.aio in the parent, which this client cannot stop."""
    use_all()
    ready, over = threading.Event(), threading.Event()

    async def stay() -> None:
        async with grpc.aio.insecure_channel("127.0.0.1:1"):
            ready.set()
            await asyncio.to_thread(over.wait)

    other = threading.Thread(target=lambda: asyncio.run(stay()))
    other.start()
    ready.wait()
    children(use_none)
    over.set()
    other.join()
    use_all()


if __name__ == "__main__":
    ways = {
        "pool": pool,
        "busy": busy,
        "foreign": foreign,
        "loop": lambda: asyncio.run(loop()),
        "beside": lambda: asyncio.run(beside()),
    }
    ways[sys.argv[1]]()
    client.close()
    print("the parent lives on")
