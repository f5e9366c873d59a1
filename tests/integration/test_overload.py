"""Ten times as much as there is room for, in processes of their own."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from headstart.v1 import precompute_pb2 as pb
from tests.support.pipelines import REFERENCES, began
from tests.support.processes import api, health, stub, worker
from tests.support.refusals import refused_for
from tests.support.requests import json_of, noop, probe, results
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

PLACES = 10
WAITERS = 20
SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": REFERENCES,
    "HEADSTART_WORKER_CONCURRENCY": "2",
    "HEADSTART_WORKER_RUNS": "2",
    "HEADSTART_MAX_QUEUED": str(PLACES),
    "HEADSTART_MAX_WAITERS": str(WAITERS),
}
MEGABYTE = 1 << 20


async def test_of_ten_times_too_many_starts_what_is_accepted_ends_and_the_rest_is_refused(
    valkey: Valkey, tmp_path: Path
):
    async with AsyncExitStack() as stack:
        process, address = await stack.enter_async_context(api(valkey.url, **SETTINGS))
        await stack.enter_async_context(worker(valkey.url, **SETTINGS))
        service = await stack.enter_async_context(stub(address))
        await service.StartPrecompute(noop("ready"))
        await service.GetResults(results("ready", 20))
        await service.GetResults(results("ready"))
        before = process.resident

        async def read_ready() -> None:
            answer = await service.GetResults(results("ready"))
            assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED

        numbers = range(PLACES * 10)
        *answers, reads, running, serving = await asyncio.gather(
            *(service.StartPrecompute(probe(f"k{n}", tmp_path, n)) for n in numbers),
            asyncio.gather(*(read_ready() for _ in range(50))),
            wait_until(lambda: len(began(tmp_path)) == 4),
            health(address),
            return_exceptions=True,
        )
        assert (reads, running, serving) == ([None] * 50, True, "SERVING")
        accepted = [n for n in numbers if isinstance(answers[n], pb.StartPrecomputeResponse)]
        assert len(accepted) == PLACES
        delays = [refused_for(answers[n]) for n in numbers if n not in accepted]
        assert all(0.1 <= delay <= 60 for delay in delays)

        # Ten times too many waiters, too; and what is ready is answered all the same.
        waits = [
            asyncio.ensure_future(service.GetResults(results(f"k{accepted[0]}", 60)))
            for _ in range(WAITERS * 10)
        ]
        await wait_until(lambda: sum(wait.done() for wait in waits) == WAITERS * 9)
        assert all(refused_for(wait.exception()) for wait in waits if wait.done())
        await read_ready()
        assert await health(address) == "SERVING"
        assert process.resident - before < 30 * MEGABYTE

        (tmp_path / "go").touch()
        for answer in await asyncio.gather(*(wait for wait in waits if not wait.done())):
            assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED
        for n in accepted:
            answer = await service.GetResults(results(f"k{n}", 30))
            assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED
            assert json_of(answer, "gated") == (n + 1) * 10
        refused = next(n for n in numbers if n not in accepted)
        started = await service.StartPrecompute(probe(f"k{refused}", tmp_path, refused))
        assert started.outcome == pb.START_OUTCOME_STARTED
        await service.GetResults(results(f"k{refused}", 30))
