"""Work for a caller over HTTP that stops when the caller goes."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from headstart_service.http.connect.bodies import ClientGone
from headstart_service.http.connect.call import while_connected


async def connected() -> Any:
    await asyncio.Event().wait()


async def test_the_failure_of_work_that_is_cancelled_meanwhile_is_nobody_s_to_report() -> None:
    unheard: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: unheard.append(about))
    failing = asyncio.Event()

    async def work() -> None:
        await failing.wait()
        raise ValueError("no")

    for turns in range(6):
        failing.clear()
        task = asyncio.create_task(while_connected(connected, work()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        failing.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled() or isinstance(task.exception(), ValueError)
        del task
        gc.collect()
        await asyncio.sleep(0)
    assert not unheard


async def test_work_ends_with_its_caller() -> None:
    async def gone() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGone):
        await while_connected(gone, connected())
