"""A finished game that is read again and again: what the figures about reading share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import grpc

from headstart.v1 import precompute_pb2 as pb

from .hand import hand_worker
from .harness import Bench
from .load import Endpoint, grpc_endpoint
from .processes import start_api, start_server

SERVICE = "headstart.v1.PrecomputeService"
GET = f"{SERVICE}/GetResults"
KEY = "ready"
Unary = Callable[[bytes], Awaitable[bytes]]


def get_request(key: str = KEY, wait: float = 0.5) -> bytes:
    """What a backend sends when its user submits: see the README."""
    request = pb.GetResultsRequest(key=key)
    request.wait.FromNanoseconds(round(wait * 1e9))
    return request.SerializeToString()


def unary(channel: grpc.aio.Channel, method: str) -> Unary:
    """A method, bytes to bytes."""
    found: Any = channel.unary_unary(f"/{method}")  # typed for messages only
    return cast("Unary", found)


async def call(address: str, method: str, request: bytes) -> bytes:
    """One call on a channel of its own."""
    async with grpc.aio.insecure_channel(address) as channel:
        return await unary(channel, method)(request)


@dataclass(frozen=True)
class Ready:
    """A finished game against Haiku, and who serves it."""

    redis_url: str
    answer: bytes
    headstart: Endpoint
    bare: Endpoint


async def ready_game(bench: Bench, **settings: str) -> Ready:
    """Keep one; start an API process, with these settings, and a bare server that answers alike."""
    url = await bench.valkey()
    async with hand_worker(url) as hand:
        await hand.keep_game(KEY)
    _, address = await start_api(bench, url, **settings)
    request = get_request()
    answer = await call(address, GET, request)
    file = bench.work / "answer.bin"
    file.write_bytes(answer)
    _, bare = await start_server(bench, "bare", str(file))
    return Ready(
        redis_url=url,
        answer=answer,
        headstart=grpc_endpoint(bench.work, address, GET, request, answer),
        bare=grpc_endpoint(bench.work, bare, "bench.Bare/Answer", request, answer),
    )
