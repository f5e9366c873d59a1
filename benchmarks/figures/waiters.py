"""Thousands who wait for one run at one API process, against an asyncio.Event in a bare server.

The calls are parked by h2load, and by nothing else: once the server has no more to do, all of them
wait. Then the run ends (the bare server's event is set), and what counts is the time until the last
answer has arrived. Both servers have the same options and send the same bytes. The connections to
Redis are counted while all of them wait.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count

from ..hand import hand_worker
from ..harness import Bench, Figure
from ..load import Endpoint, grpc_endpoint, parked, require_h2load
from ..pipelines import LIGHT, NOOP
from ..processes import Process, start_api, start_server
from ..ready import GET, call, get_request
from ..results import Line, Series, at_most

_PATIENCE = 120.0


async def measure(bench: Bench) -> Sequence[Line]:
    number = round(bench.pick(quick=2_000, full=10_000))
    url = await bench.valkey()
    api, address = await start_api(bench, url, **LIGHT)
    redis = await bench.redis(url)
    hand = await bench.stack.enter_async_context(hand_worker(url))
    keys = (f"awaited-{number:06}" for number in count())
    await hand.start(first := next(keys), NOOP, {})
    await hand.finish(await hand.claim())
    answer = await call(address, GET, get_request(first))
    file = bench.work / "answer.bin"
    file.write_bytes(answer)
    bare, bare_address = await start_server(bench, "bare", str(file))
    bare_endpoint = grpc_endpoint(bench.work, bare_address, "bench.Bare/Wait", b"", answer)
    connections, memory, bare_memory = [], [], []

    async def ours() -> float:
        key = next(keys)
        await hand.start(key, NOOP, {})
        claim = await hand.claim()
        request = get_request(key, wait=_PATIENCE)
        endpoint = grpc_endpoint(bench.work, address, GET, request, answer)

        async def end() -> None:
            others = [c for c in await redis.client_list() if c["name"] != "benchmark"]
            connections.append(float(len(others)))
            memory.append(api.resident_mb())
            # Its waiters are told when this is written, so all of it counts.
            began.append(time.time())
            await hand.finish(claim)

        began: list[float] = []
        return await _last_answer(bench, api, endpoint, number, end, began)

    async def event() -> float:
        async def fire() -> None:
            bare_memory.append(bare.resident_mb())
            began.append(time.time())
            await call(bare_address, "bench.Bare/Fire", b"")

        began: list[float] = []
        return await _last_answer(bench, bare, bare_endpoint, number, fire, began)

    waited, least = await bench.alternate(ours, event)
    return [
        Line(
            f"{number:,} waiters, until all are answered",
            "s",
            Series("Headstart", waited),
            Series("bare asyncio.Event", least),
            at_most(1.5),
            f"{max(memory):.0f} MB, bare {max(bare_memory):.0f} MB",
        ),
        Line(
            f"Redis connections under {number:,} waiters",
            "connections",
            Series("Headstart", connections),
            target=at_most(4),
        ),
    ]


async def _last_answer(
    bench: Bench,
    server: Process,
    endpoint: Endpoint,
    number: int,
    end: Callable[[], Awaitable[None]],
    began: list[float],
) -> float:
    """Seconds from when `end` began until the last of those parked was answered."""
    async with parked(endpoint, number, bench.work / "parked.tsv") as answered:
        await server.idle()
        await end()
        answers = await answered
    late = sum(answer.ended - answer.took > began[0] for answer in answers)
    early = sum(answer.ended < began[0] for answer in answers)
    if len(answers) != number or late or early:
        raise RuntimeError(f"of {number}, {len(answers)} waited, {late} late, {early} not long")
    return max(answer.ended for answer in answers) - began[0]


FIGURE = Figure("waiters", "Thousands who wait at once", measure, needs=require_h2load)
