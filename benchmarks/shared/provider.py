"""What 500 games do to the API of a language model that allows ten calls a second.

Two workers start the games at once; each makes one call, and is needed in 75 seconds. Measured
with the limit in a file and without one, when the workers must find it out; then an API that
refuses every call, for as long as the games are wanted, and one that is away for two seconds.
A game whose result is not there when it is needed is lost.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from pydantic import BaseModel

from headstart.v1 import precompute_pb2 as pb
from headstart_service.pipeline.language_model import LanguageModel
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.values.artifacts import ArtifactCodec

from ..curves.curve import part
from ..harness import Bench, Figure
from ..processes import clean_environment, running, start_api
from ..ready import SERVICE as METHODS
from ..ready import Unary, unary
from ..results import Line, Series, at_most
from .messages_server import MessagesServer, serving

_GAMES, _RATE = 500, 10.0
_NEED = 75.0
"""Seconds: half as long again as ten calls a second take for all."""
_NEED_OF_FEW = 15.0
_LIMIT = f"[providers.anthropic]\ncalls_a_minute = {60 * _RATE:.0f}\n"


class Inputs(BaseModel):
    number: int


class Words(BaseModel):
    words: list[str]


@step(timeout=45)
async def bridge(number: int, language_model: LanguageModel) -> list[str]:
    """Ask for words, as `haiku_bridge` does."""
    prompt = f"game {number}"
    answer = await language_model.parse(
        system="Say words.", prompt=prompt, output=Words, max_tokens=50
    )
    return answer.words


BRIDGE = Pipeline(
    name="bridge",
    version="1",
    description="Makes one call of a language model",
    inputs=Inputs,
    steps=(bridge,),
    codec=ArtifactCodec(),
)
_ONLY = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": f"{__name__}:BRIDGE"}


@dataclass(frozen=True)
class Played:
    """What became of the games."""

    lost: int
    calls: int
    refused: float
    """Percent of the calls."""
    seconds: float


async def measure(bench: Bench) -> Sequence[Line]:
    games = round(bench.pick(quick=150, full=_GAMES))
    need = _NEED * games / _GAMES
    known = await _play(bench, MessagesServer(_RATE), games, need, limits=_LIMIT)
    unknown = await _play(bench, MessagesServer(_RATE), games, need)
    never = await _play(bench, MessagesServer(0.0), games, need)
    away = await _play(bench, MessagesServer(1000.0), 50, _NEED_OF_FEW, outage=2.0)
    return [
        *_lines("10 calls/s, in the file", known),
        *_lines("10 calls/s, not known", unknown),
        Line(f"calls, always 429, {need:.0f} s", "calls", _one(never.calls), target=at_most(100)),
        Line("lost games, away for 2 s", "games", _one(away.lost), target=at_most(0)),
        Line("calls of 50 games, away for 2 s", "calls", _one(away.calls)),
    ]


def _lines(title: str, played: Played) -> list[Line]:
    return [
        Line(f"refused, {title}", "%", _one(played.refused), target=at_most(5)),
        Line(f"lost games, {title}", "games", _one(played.lost), target=at_most(0)),
        Line(f"all games, {title}", "s", _one(played.seconds)),
    ]


def _one(value: float) -> Series:
    return Series("govern", [value])


async def _play(
    bench: Bench,
    server: MessagesServer,
    games: int,
    need: float,
    *,
    limits: str = "",
    outage: float = 0.0,
) -> Played:
    async with part(bench, 4) as here, serving(server) as url, _service(here, url, limits) as rpc:
        server.plan_outage(0.0, outage)
        began = time.monotonic()
        found = await asyncio.gather(*(_game(rpc, number, need) for number in range(games)))
        took = time.monotonic() - began
        here.tick(1.0)
        refused = 100 * server.refused / max(server.calls, 1)
        return Played(games - sum(found), server.calls, refused, took)


@asynccontextmanager
async def _service(here: Bench, api_url: str, limits: str) -> AsyncIterator[grpc.aio.Channel]:
    """An API process and two workers that call `api_url`."""
    redis_url = await here.valkey()
    file = here.work / "limits.toml"
    await asyncio.to_thread(file.write_text, limits)
    only = {name.removeprefix("HEADSTART_"): value for name, value in _ONLY.items()}
    _, address = await start_api(here, redis_url, **only, MAX_CACHED_RESULTS="100000")
    environment = clean_environment() | _ONLY
    environment |= {
        "HEADSTART_REDIS_URL": redis_url,
        "HEADSTART_HTTP_PORT": "0",
        "HEADSTART_WORKER_CONCURRENCY": str(_GAMES // 2),
        "HEADSTART_LIMITS": str(file),
        "ANTHROPIC_API_KEY": "benchmark",
        "ANTHROPIC_BASE_URL": api_url,
    }
    command = [sys.executable, "-m", "headstart_service", "worker"]
    for _ in range(2):
        worker = await here.stack.enter_async_context(running(command, here.work, environment))
        await worker.says("headstart worker ready", within=120)
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel


async def _game(channel: grpc.aio.Channel, number: int, need: float) -> bool:
    """Start a game and read it when it is needed. Returns whether its words are there."""
    start = unary(channel, f"{METHODS}/StartPrecompute")
    get = unary(channel, f"{METHODS}/GetResults")
    spec = pb.CustomSpec(pipeline="bridge")
    spec.inputs.update({"number": number})
    request = pb.StartPrecomputeRequest(key=f"game-{number}", custom=spec)
    request.expected_need_in.FromMilliseconds(round(need * 1000))
    began = time.monotonic()
    await _answered(start, request.SerializeToString())
    wanted = pb.GetResultsRequest(key=request.key)
    while (left := began + need - time.monotonic()) > 0:
        await asyncio.sleep(min(left, 1.0))
        answer = pb.GetResultsResponse.FromString(await _answered(get, wanted.SerializeToString()))
        if answer.status == pb.PRECOMPUTE_STATUS_COMPLETED:
            return "bridge" in answer.custom.artifacts
        if answer.status == pb.PRECOMPUTE_STATUS_FAILED:
            return False
    return False


async def _answered(method: Unary, request: bytes) -> bytes:
    """Call until it is answered: 500 games at once may make the store late."""
    while True:
        try:
            return await method(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        await asyncio.sleep(0.5)


PROVIDER = Figure("provider", "Games beside a language model's limits", measure)
