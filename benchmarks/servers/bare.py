"""The least that a grpc.aio server can do: the floor under every figure about answering.

    bench.Bare/Answer   returns the bytes of a file; nothing is parsed
    bench.Bare/Wait     returns them once Fire was called: an asyncio.Event
    bench.Bare/Fire     lets everyone go who waits

Its options and its event loop are those of Headstart's server.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import grpc
import uvloop

OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


async def serve(answer_bytes: bytes) -> None:
    event = asyncio.Event()

    async def answer(_: bytes, __: Any) -> bytes:
        return answer_bytes

    async def wait(_: bytes, __: Any) -> bytes:
        await event.wait()
        return answer_bytes

    async def fire(_: bytes, __: Any) -> bytes:
        nonlocal event
        event.set()
        event = asyncio.Event()
        return b""

    methods = {"Answer": answer, "Wait": wait, "Fire": fire}
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()
    }
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bare", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on {port}", flush=True)
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("answer", type=Path, help="the file whose bytes are the answer")
    answer = parser.parse_args().answer.read_bytes()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(answer))


if __name__ == "__main__":
    main()
