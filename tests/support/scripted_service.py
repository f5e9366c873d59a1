"""The fake service: a real gRPC server that gives the answers that a test sets."""

# ruff: noqa: N802  (gRPC names the methods)

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from headstart.v1 import precompute_pb2 as pb
from headstart.v1.precompute_pb2_grpc import (
    PrecomputeServiceServicer,
    add_PrecomputeServiceServicer_to_server,
)


@dataclass
class Fault:
    """An answer that is an error, with google.rpc details."""

    code: grpc.StatusCode
    message: str = "made to fail"
    violations: Sequence[tuple[str, str]] = ()
    retry_after: float | None = None
    error_id: str | None = None
    raw_details: bytes | None = None

    async def raise_in(self, context: grpc.aio.ServicerContext) -> None:
        if self.raw_details is not None:
            context.set_trailing_metadata((("grpc-status-details-bin", self.raw_details),))
            await context.abort(self.code, self.message)
        status = status_pb2.Status(code=getattr(code_pb2, self.code.name), message=self.message)
        for detail in self._details():
            status.details.add().Pack(detail)
        await context.abort_with_status(rpc_status.to_status(status))

    def _details(self) -> Iterator[Message]:
        if self.violations:
            yield error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=name, description=text)
                    for name, text in self.violations
                ]
            )
        if self.retry_after is not None:
            info = error_details_pb2.RetryInfo()
            info.retry_delay.FromNanoseconds(round(self.retry_after * 1e9))
            yield info
        if self.error_id is not None:
            yield error_details_pb2.ErrorInfo(
                reason="INTERNAL", domain="headstart", metadata={"error_id": self.error_id}
            )


@dataclass
class Call:
    """What the server saw of one call."""

    method: str
    request: Any
    time_remaining: float | None
    metadata: dict[str, str | bytes]


async def hang(request: Message, context: grpc.aio.ServicerContext) -> Any:
    """Never answer."""
    await asyncio.Event().wait()


Answer = Message | Fault | Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


@dataclass
class ScriptedService(PrecomputeServiceServicer):
    """The service, in a loop and a thread of its own: tests block their loop on purpose.

    Each method gives its answers in turn and repeats the last. A stream's answer is a list of
    messages, which a Fault may end.
    """

    port: int = 0
    calls: list[Call] = field(default_factory=list)
    _answers: dict[str, list[Any]] = field(default_factory=dict)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _server: grpc.aio.Server | None = None
    _thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def on(self, method: str, *answers: Answer | list[Answer]) -> None:
        self._answers[method] = list(answers)

    def seen(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()
        self._run(self._start())

    def stop(self) -> None:
        self._run(self._stop())

    def shut_down(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join(5)
        self._loop.close()

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(5)

    async def _start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_PrecomputeServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)

    def record(self, method: str, request: Message, context: grpc.aio.ServicerContext) -> None:
        """Note a call that an override answers."""
        self.calls.append(
            Call(
                method,
                request,
                context.time_remaining(),
                dict(context.invocation_metadata() or ()),
            )
        )

    def _next(self, method: str, request: Message, context: grpc.aio.ServicerContext) -> Any:
        self.record(method, request, context)
        answers = self._answers.get(method) or [Fault(grpc.StatusCode.NOT_FOUND)]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def _answer(
        self, method: str, request: Message, context: grpc.aio.ServicerContext
    ) -> Any:
        answer = self._next(method, request, context)
        if isinstance(answer, Fault):
            await answer.raise_in(context)
        return await answer(request, context) if callable(answer) else answer

    async def StartPrecompute(self, request: Any, context: Any) -> Any:
        return await self._answer("StartPrecompute", request, context)

    async def GetResults(self, request: Any, context: Any) -> Any:
        return await self._answer("GetResults", request, context)

    async def BatchStartPrecomputes(self, request: Any, context: Any) -> Any:
        return await self._answer("BatchStartPrecomputes", request, context)

    async def BatchGetResults(self, request: Any, context: Any) -> Any:
        return await self._answer("BatchGetResults", request, context)

    async def WatchResults(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for answer in self._next("WatchResults", request, context):
            if isinstance(answer, Fault):
                await answer.raise_in(context)
            elif callable(answer):
                await answer(request, context)
            elif isinstance(answer, pb.WatchResultsResponse):
                yield answer
            else:
                yield pb.WatchResultsResponse(results=answer)

    async def GetStatus(self, request: Any, context: Any) -> Any:
        return await self._answer("GetStatus", request, context)

    async def CancelPrecompute(self, request: Any, context: Any) -> Any:
        return await self._answer("CancelPrecompute", request, context)

    async def DeletePrecompute(self, request: Any, context: Any) -> Any:
        return await self._answer("DeletePrecompute", request, context)

    async def TouchPrecompute(self, request: Any, context: Any) -> Any:
        return await self._answer("TouchPrecompute", request, context)

    async def CreateRunToken(self, request: Any, context: Any) -> Any:
        return await self._answer("CreateRunToken", request, context)

    async def ReportStep(self, request: Any, context: Any) -> Any:
        return await self._answer("ReportStep", request, context)

    async def ListPrecomputes(self, request: Any, context: Any) -> Any:
        return await self._answer("ListPrecomputes", request, context)

    async def ListPipelines(self, request: Any, context: Any) -> Any:
        return await self._answer("ListPipelines", request, context)

    async def GetStats(self, request: Any, context: Any) -> Any:
        return await self._answer("GetStats", request, context)
