"""A real server to be fuzzed: calls it with raw bytes, and tells whether it came through."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import grpc
from google.protobuf.message_factory import GetMessageClass

from headstart.v1 import precompute_pb2 as pb
from headstart_service.store.keys import PartitionKeys
from tests.support.processes import SERVICE, Process, api, stub, worker
from tests.support.requests import noop, results
from tests.support.valkey import Valkey

T = TypeVar("T")
METHODS = pb.DESCRIPTOR.services_by_name["PrecomputeService"].methods_by_name
PIPELINES = "tests.support.pipelines:NOOP,tests.support.pipelines:CHAIN"
PATIENCE = 5.0
"""Seconds within which the server must answer a unary call."""
_GLANCE = 0.3
"""Seconds for which a stream is watched."""
_AT_ONCE = 100
_TRIES = 4

Call = tuple[str, bytes]
"""A method's name, and a serialized request or what passes for one."""
ALLOWED = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.FAILED_PRECONDITION,  # a token for one run, where no tokens are needed
    }
)
"""What any request may be answered with while all is well: never INTERNAL, never too late."""


class Victim:
    """A server process with a worker and a Valkey, and a loop to talk to them from."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._calls = 0
        self.valkey: Valkey
        self.server: Process
        self.worker: Process
        self.address = ""
        self.http_port = 0
        self._channel: grpc.aio.Channel

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Victim]:
        with TemporaryDirectory() as directory, asyncio.Runner() as runner:
            victim = cls(runner)
            stack = AsyncExitStack()
            try:
                runner.run(victim._open(stack, Path(directory)))
                yield victim
                victim.is_well()
            finally:
                runner.run(stack.aclose())

    async def _open(self, stack: AsyncExitStack, directory: Path) -> None:
        self.valkey = Valkey(directory)
        await self.valkey.start()
        stack.push_async_callback(self.valkey.kill)
        known = {"HEADSTART_PIPELINES": PIPELINES, "HEADSTART_MAX_CACHED_RESULTS": "300"}
        # The worker knows no bridging, so that those runs fail at once rather than load a model.
        light = known | {"HEADSTART_BRIDGING": "false", "HEADSTART_LEASE": "1"}
        self.server, self.address = await stack.enter_async_context(api(self.valkey.url, **known))
        self.http_port = int((await self.server.says(r"HTTP on \S+:(\d+)"))[1])
        self.worker = await stack.enter_async_context(worker(self.valkey.url, **light))
        self._channel = await stack.enter_async_context(grpc.aio.insecure_channel(self.address))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run this on the victim's loop."""
        return self._runner.run(coroutine)

    @property
    def port(self) -> int:
        """The gRPC port."""
        return int(self.address.rpartition(":")[2])

    def call_all(
        self, calls: Sequence[Call], allowed: frozenset[grpc.StatusCode] = ALLOWED
    ) -> list[grpc.StatusCode]:
        """Make these calls, many at once; each must end in time and with a code that is allowed."""
        return self.run(self._call_all(calls, allowed))

    async def _call_all(
        self, calls: Sequence[Call], allowed: frozenset[grpc.StatusCode]
    ) -> list[grpc.StatusCode]:
        turn = asyncio.Semaphore(_AT_ONCE)

        async def one(method: str, data: bytes) -> grpc.StatusCode:
            async with turn:
                code, said = await self._answer(method, data)
            assert code in allowed, (
                f"{method} of {data[:2000].hex()!r} gave {code.name}: {said}\n{self._logged(said)}"
            )
            return code

        return await asyncio.gather(*(one(*call) for call in calls))

    async def _answer(self, method: str, data: bytes) -> tuple[grpc.StatusCode, str]:
        code, said = await self.call(method, data)
        for _ in range(_TRIES):
            # A busy machine may answer late; whoever is told UNAVAILABLE tries again.
            if code is not grpc.StatusCode.UNAVAILABLE:
                break
            await asyncio.sleep(0.2)
            code, said = await self.call(method, data)
        return code, said

    async def call(self, method: str, data: bytes) -> tuple[grpc.StatusCode, str]:
        """The code and the text of the answer. Of a stream that has no end yet: OK."""
        path = f"/{SERVICE}/{method}"
        answer = GetMessageClass(METHODS[method].output_type).FromString
        try:
            if METHODS[method].server_streaming:
                stream = self._channel.unary_stream(path, None, answer)(data, timeout=_GLANCE)
                async for _ in stream:
                    pass
            else:
                await self._channel.unary_unary(path, None, answer)(data, timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if late and METHODS[method].server_streaming:
                return grpc.StatusCode.OK, ""
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""

    def _logged(self, said: str) -> str:
        """What the server's log says about an internal error; that it says nothing is a bug too."""
        found = re.search(r"internal error ([0-9a-f]{12})", said)
        if found is None:
            return "the answer names no error id"
        _, _, after = self.server.output.partition(found[1])
        return after[:3000] or "and its id is not in the log"

    def is_well(self) -> None:
        """Fail unless all processes live, a run is computed, and no key lives for ever.

        Nor may there be a traceback in a log, unless it has the id that a caller was told.
        """
        self.run(self._is_well())

    async def _is_well(self) -> None:
        assert self.server.alive, self.server.tail
        assert self.worker.alive, self.worker.tail
        self._calls += 1
        key = f"normal-{self._calls}"
        async with stub(self.address) as service:
            await service.StartPrecompute(noop(key), timeout=PATIENCE, wait_for_ready=True)
            answer = await service.GetResults(results(key, 20), timeout=30)
        assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED, answer
        async with self.valkey.client() as client:
            fixed = set(PartitionKeys(0).fixed)
            async for name in client.scan_iter(count=1000):
                if name.decode() not in fixed:
                    assert await client.pttl(name) != -1, f"{name!r} lives for ever"
        for process in (self.server, self.worker):
            for entry in re.split(r"^(?=\d{4}-\d\d-\d\d )", process.output, flags=re.MULTILINE):
                told = re.search(r"internal error [0-9a-f]{12}", entry)
                assert told or "Traceback" not in entry, entry[:5000]
