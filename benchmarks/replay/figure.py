"""Which order of the queue saves users more waiting, when there is twice the work that fits.

Both orders serve each trace, in turn, with the same worker: the order is the API process's. A trace
gives one ratio; the interval is that of their geometric mean, by Student's t.
A user who submits takes what is there. What is not is waited for if the answer's estimate says that
it will be there before a live computation would, for as long as that would take; else its run is
cancelled and it is computed live, which has saved nothing.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count

import grpc

from headstart.v1 import precompute_pb2 as pb

from ..harness import Bench, Figure
from ..processes import Process, start_api, start_worker
from ..ready import GET, SERVICE, Unary, get_request, unary
from ..results import TIMES, Line, Series, at_least
from .pipelines import ONLY
from .trace import SHAPES, User, made

LOAD = 2.0
_SEEDS_QUICK, _SEEDS = 5, 10
_GOAL, _LEAST = 1.5, 1.2
"""What the mean ratio must reach, and what the lower end of its interval must."""
_TRIES = 5
_STUDENT = {14: 2.145, 29: 2.045}
"""By degrees of freedom: where 95 % of the distribution ends, on both sides."""
_Replay = Callable[[Sequence[User], "_Replayed"], Awaitable[None]]
_ROOM = {"MAX_CACHED_RESULTS": "100000"}
"""What an earlier replay has left must not be in the way of a later one."""


class _Replayed:
    """What one order has given, one sample a replay."""

    def __init__(self) -> None:
        self.ready: list[float] = []
        self.saved: list[float] = []
        self.efficiency: list[float] = []
        """Seconds of waiting saved for each second of the processor."""


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    # One run at a time: more would share the core, and end later all of them.
    limits = ONLY | {"WORKER_CONCURRENCY": "1", "WORKER_RUNS": "1", "LEASE": "2"}
    worker = await start_worker(bench, url, **limits)
    names = count()
    replays: list[_Replay] = []
    for order in ("need", "arrival"):
        _, address = await start_api(bench, url, **ONLY, **_ROOM, QUEUE_ORDER=order)
        channel = await bench.stack.enter_async_context(grpc.aio.insecure_channel(address))
        replays.append(_replay(channel, worker, names))
    seeds = range(_SEEDS_QUICK if bench.quick else _SEEDS)
    await replays[0](made(LOAD, SHAPES[0], -1), _Replayed())  # warms up
    lines: list[Line] = []
    ratios: list[float] = []
    for shape in SHAPES:
        need, arrival = _Replayed(), _Replayed()
        for seed in seeds:
            users = made(LOAD, shape, seed)
            both = list(zip(replays, (need, arrival), strict=True))
            for replay, into in reversed(both) if seed % 2 else both:
                await replay(users, into)
                bench.tick(1 / (len(SHAPES) * len(seeds) * 2))
        compared = _line(f"{shape.name}: waiting saved per CPU second", "s/s", need, arrival)
        ratios += compared.values
        lines += [
            compared,
            _line(f"{shape.name}: ready at submit", "%", need, arrival, "ready"),
        ]
    return [*lines, *_interval(ratios)]


def _interval(ratios: Sequence[float]) -> Sequence[Line]:
    """The mean ratio of all traces, and the lower end of its interval of 95 %."""
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.fmean(logs)
    reach = _STUDENT[len(logs) - 1] * statistics.stdev(logs) / math.sqrt(len(logs))
    low, high = math.exp(mean - reach), math.exp(mean + reach)
    note = f"{len(ratios)} traces at {LOAD:g} times the load; 95 %: {low:.2f} to {high:.2f}"
    return [
        Line(
            "by need over by arrival",
            TIMES,
            Series("mean", [math.exp(mean)]),
            target=at_least(_GOAL),
            note=note,
        ),
        Line("lower end of its interval", TIMES, Series("low", [low]), target=at_least(_LEAST)),
    ]


def _line(
    title: str, unit: str, need: _Replayed, arrival: _Replayed, what: str = "efficiency"
) -> Line:
    ours, theirs = (
        Series(f"by {name}", getattr(each, what))
        for name, each in (("need", need), ("arrival", arrival))
    )
    return Line(title, unit, ours, theirs)


def _replay(channel: grpc.aio.Channel, worker: Process, names: count[int]) -> _Replay:
    start = _patient(unary(channel, f"{SERVICE}/StartPrecompute"))
    cancel = _patient(unary(channel, f"{SERVICE}/CancelPrecompute"))
    get = _patient(unary(channel, GET))

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

    async def replay(users: Sequence[User], into: _Replayed) -> None:
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
        into.efficiency.append(saved / (worker.used_seconds() - used))

    return replay


def _patient(call: Unary) -> Unary:
    """Call again while the store is unavailable: the worker may have kept the core from it."""

    async def tried(request: bytes) -> bytes:
        for _ in range(_TRIES):
            try:
                return await call(request)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
        return await call(request)

    return tried


def _is_worth_waiting(answer: pb.GetResultsResponse, cost: float) -> bool:
    """Whether all is expected to be there before it could be computed live."""
    (report,) = answer.steps.values()
    return report.HasField("estimate") and report.estimate.p50.ToMicroseconds() < cost * 1e6


async def _cancelled(cancel: Unary, key: str) -> None:
    await cancel(pb.CancelPrecomputeRequest(key=key).SerializeToString())


REPLAY = Figure("replay", "Twice the work that fits: by need or by arrival", measure)
