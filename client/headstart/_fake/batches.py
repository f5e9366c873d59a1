"""Calls about many runs, as `headstart.testing.fake_server` answers them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeAlias

from headstart._errors import HeadstartError
from headstart._fake import checks
from headstart._fake.errors import Context, item_error
from headstart.v1 import precompute_pb2 as pb

StartOne: TypeAlias = Callable[
    [pb.StartPrecomputeRequest, Context], Awaitable[pb.StartPrecomputeResponse]
]
GetOne: TypeAlias = Callable[[pb.GetResultsRequest, Context], Awaitable[pb.GetResultsResponse]]
WatchOne: TypeAlias = Callable[
    [pb.WatchResultsRequest], AsyncGenerator[pb.WatchResultsResponse, None]
]


async def start_many(
    start: StartOne, request: pb.BatchStartPrecomputesRequest, context: Context
) -> pb.BatchStartPrecomputesResponse:
    """Start each run by `start`."""
    check = checks.Checks()
    check.batch("requests", request.requests)
    check.refuse()
    answer = pb.BatchStartPrecomputesResponse()
    for each in request.requests:
        result = answer.results.add()
        try:
            result.response.CopyFrom(await start(each, context))
        except HeadstartError as error:
            result.error.CopyFrom(item_error(error))
    return answer


async def get_many(
    get: GetOne, request: pb.BatchGetResultsRequest, context: Context
) -> pb.BatchGetResultsResponse:
    """Read each run by `get`, all at once; answer when enough have settled."""
    check = checks.Checks()
    check.keys(request)
    check.repeated("required_steps", request.required_steps)
    check.repeated("result_steps", request.result_steps)
    check.seconds(request, "wait", 0, checks.MAX_WAIT)
    if not 0 <= request.min_ready <= len(request.keys):
        number = len(request.keys)
        check.add("min_ready", f"must be 0 to {number}, the number of keys, is {request.min_ready}")
    check.refuse()

    async def one(key: str, *, now: bool = False) -> pb.BatchGetResult:
        sent = pb.GetResultsRequest(
            namespace=request.namespace,
            key=key,
            wait=None if now else request.wait,
            required_steps=request.required_steps,
            result_steps=request.result_steps,
            partial_results=request.partial_results,
        )
        try:
            return pb.BatchGetResult(response=await get(sent, context))
        except HeadstartError as error:
            return pb.BatchGetResult(error=item_error(error))

    tasks = [asyncio.create_task(one(key)) for key in request.keys]
    enough = request.min_ready or len(tasks)
    for settled in asyncio.as_completed(tasks):
        await settled
        enough -= 1
        if not enough:
            break
    results = []
    for key, task in zip(request.keys, tasks, strict=True):
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            results.append(await one(key, now=True))
        else:
            results.append(task.result())
    return pb.BatchGetResultsResponse(results=results)


async def watch_many(
    watch: WatchOne, request: pb.WatchResultsRequest
) -> AsyncGenerator[pb.WatchResultsResponse, None]:
    """Watch each run by `watch`, all on one stream."""
    check = checks.Checks()
    check.keys(request)
    if request.key:
        check.add("key", "must be empty beside keys")
    check.repeated("result_steps", request.result_steps)
    check.cursors(request, request.keys)
    check.refuse()
    queue: asyncio.Queue[pb.WatchResultsResponse | None] = asyncio.Queue(1)

    async def pass_on(key: str) -> None:
        one = pb.WatchResultsRequest()
        one.CopyFrom(request)
        del one.keys[:]
        one.key = key
        del one.partial_cursors[:]
        for cursor in request.partial_cursors:
            if cursor.key == key:
                one.partial_cursors.add(
                    step=cursor.step, generation=cursor.generation, offset=cursor.offset
                )
        try:
            async with aclosing(watch(one)) as messages:
                async for message in messages:
                    await queue.put(message)
        except HeadstartError as error:
            await queue.put(pb.WatchResultsResponse(key=key, error=item_error(error)))
        await queue.put(None)

    tasks = [asyncio.create_task(pass_on(key)) for key in request.keys]
    try:
        left = len(tasks)
        while left:
            message = await queue.get()
            if message is None:
                left -= 1
            else:
                yield message
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
