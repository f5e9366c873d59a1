"""Which order of the queue saves users more waiting, when there is twice the work that fits.

Both orders serve the same trace, in turn, with the same worker: the order is the API process's.
A user who submits takes what is there. What is not is waited for if the answer's estimate says that
it will be there before a live computation would, for as long as that would take; else its run is
cancelled and it is computed live, which has saved nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count

import grpc

from headstart.v1 import precompute_pb2 as pb

from ..harness import Bench, Figure
from ..processes import Process, start_api, start_worker
from ..ready import GET, SERVICE, Unary, get_request, unary
from ..results import Line, Series
from .pipelines import ONLY
from .trace import User, made

LOAD = 2.0
_SEED = 6
_REPEATS_QUICK, _REPEATS = 4, 8
_ROOM = {"MAX_CACHED_RESULTS": "100000"}
"""What an earlier replay has left must not be in the way of a later one."""


class _Replayed:
    """What one order has given, one sample a replay."""

    def __init__(self) -> None:
        self.ready: list[float] = []
        self.saved: list[float] = []


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    # One run at a time: more would share the core, and end later all of them.
    limits = ONLY | {"WORKER_CONCURRENCY": "1", "LEASE": "2"}
    worker = await start_worker(bench, url, **limits)
    users = made(LOAD, _SEED)
    names = count()
    orders: list[Callable[[], Awaitable[float]]] = []
    seen: list[_Replayed] = []
    for order in ("need", "arrival"):
        _, address = await start_api(bench, url, **ONLY, **_ROOM, QUEUE_ORDER=order)
        channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
        seen.append(_Replayed())
        orders.append(_replay(channel, worker, users, names, seen[-1]))
    repeats = _REPEATS_QUICK if bench.quick else _REPEATS
    need, arrival = await bench.alternate(*orders, repeats=repeats)
    possible = sum(user.kind.cost for user in users if user.returns)
    about = f"{len(users)} users at {LOAD:g} times the load; {possible:.1f} s could be saved"
    saved, ready = (
        [each.saved[-repeats:] for each in seen],
        [each.ready[-repeats:] for each in seen],
    )
    return [
        _line("waiting saved per CPU second", "s/s", [need, arrival], about),
        _line("waiting saved", "s", saved, about),
        _line("ready at submit", "%", ready, "of those who came back"),
    ]


def _line(title: str, unit: str, orders: Sequence[Sequence[float]], note: str) -> Line:
    need, arrival = orders
    return Line(title, unit, Series("by need", need), Series("by arrival", arrival), None, note)


def _replay(
    channel: grpc.aio.Channel,
    worker: Process,
    users: Sequence[User],
    names: count[int],
    into: _Replayed,
) -> Callable[[], Awaitable[float]]:
    start = unary(channel, f"{SERVICE}/StartPrecompute")
    cancel = unary(channel, f"{SERVICE}/CancelPrecompute")
    get = unary(channel, GET)

    async def one(user: User, key: str, began: float) -> tuple[float, bool]:
        """The seconds that it did not wait, and whether all was there when it submitted."""
        await asyncio.sleep(began + user.arrives - time.monotonic())
        spec = pb.CustomSpec(pipeline=user.kind.pipeline)
        request = pb.StartPrecomputeRequest(key=key, custom=spec)
        request.custom.inputs.update({"user": 1})
        request.expected_need_in.FromNanoseconds(round(user.declares * 1e9))
        await start(request.SerializeToString())
        await asyncio.sleep(began + user.arrives + user.thinks - time.monotonic())
        if not user.returns:
            return 0.0, False
        submitted = time.monotonic()
        answer = pb.GetResultsResponse.FromString(await get(get_request(key, 0)))
        if ready := answer.status == pb.PRECOMPUTE_STATUS_COMPLETED:
            return user.kind.cost, ready
        if _is_worth_waiting(answer, user.kind.cost):
            answer = pb.GetResultsResponse.FromString(await get(get_request(key, user.kind.cost)))
        if answer.status != pb.PRECOMPUTE_STATUS_COMPLETED:
            await _cancelled(cancel, key)
            return 0.0, False
        return max(user.kind.cost - (time.monotonic() - submitted), 0.0), False

    async def replay() -> float:
        round_ = next(names)
        keys = [f"replay-{round_}-{number}" for number in range(len(users))]
        used, began = worker.used_seconds(), time.monotonic()
        told = await asyncio.gather(
            *(one(user, key, began) for user, key in zip(users, keys, strict=True))
        )
        for key in keys:
            await _cancelled(cancel, key)
        await worker.idle()
        saved = sum(seconds for seconds, _ in told)
        returned = sum(user.returns for user in users)
        into.saved.append(saved)
        into.ready.append(100 * sum(ready for _, ready in told) / returned)
        return saved / (worker.used_seconds() - used)

    return replay


def _is_worth_waiting(answer: pb.GetResultsResponse, cost: float) -> bool:
    """Whether all is expected to be there before it could be computed live."""
    (report,) = answer.steps.values()
    return report.HasField("estimate") and report.estimate.p50.ToMicroseconds() < cost * 1e6


async def _cancelled(cancel: Unary, key: str) -> None:
    await cancel(pb.CancelPrecomputeRequest(key=key).SerializeToString())


REPLAY = Figure("replay", "Twice the work that fits: by need or by arrival", measure)
