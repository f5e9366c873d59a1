"""A server for callers' tests: the service's contract over real gRPC, with scripted results."""

from __future__ import annotations

import asyncio
import math
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from headstart._errors import HeadstartError
from headstart._fake.errors import Context, abort
from headstart._fake.reported_steps import ReportedStep
from headstart._fake.script import Estimated, Failed, Script, Scripted, script_of
from headstart._fake.service import FakeService
from headstart._messages.artifacts import Json
from headstart._messages.inputs import inputs_of
from headstart._messages.results import Results, StepOrigin
from headstart.v1 import precompute_pb2 as pb

T = TypeVar("T")
Answer: TypeAlias = Callable[[Any, Context], Awaitable[Message]]

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["PrecomputeService"]


@dataclass(frozen=True)
class RecordedRequest:
    """A call as the server got it."""

    method: str
    """Its name in the contract, such as "GetResults"."""
    message: Any
    """The request, a message of `headstart.v1.precompute_pb2`."""
    metadata: Mapping[str, str | bytes]

    @property
    def inputs(self) -> dict[str, Any]:
        """Return the inputs of a custom pipeline's start, in either form; else nothing."""
        is_start = isinstance(self.message, pb.StartPrecomputeRequest)
        return inputs_of(self.message.custom) if is_start else {}


@dataclass
class _Fault:
    error: HeadstartError
    method: str | None
    left: float


class FakeServer:
    """Answers on a free port of the loopback interface, from a thread and a loop of its own.

    `headstart.testing.fake_server` makes one. All methods may be called from any thread, and act on
    calls and starts that come later.
    """

    def __init__(self, made_up: Callable[..., Results], default: Script) -> None:
        """Keep the script; `made_up` makes the results of a game for which none are scripted."""
        self.requests: list[RecordedRequest] = []
        """The requests, in the order in which they came."""
        self._service = FakeService(made_up, default)
        self._faults: list[_Fault] = []
        self._slowness: dict[str | None, float] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake Headstart")
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def address(self) -> str:
        """Return the address for clients, or for `HEADSTART_ADDRESS`."""
        return f"127.0.0.1:{self._port}"

    def script(
        self,
        results: Scripted | None = None,
        *,
        key: str | None = None,
        pipeline: str | None = None,
        delays: Mapping[str, float] | None = None,
        failed: Mapping[str, Failed] | None = None,
        error: Failed | None = None,
        queued: float = 0.0,
        estimates: Mapping[str, Estimated] | None = None,
        origins: Mapping[str, StepOrigin | str] | None = None,
        needs: Mapping[str, Iterable[str]] | None = None,
        items: Mapping[str, Iterable[float]] | None = None,
        streams: Mapping[str, Iterable[Json]] | None = None,
    ) -> None:
        """Script what later starts give, of one key, of one pipeline, or all; the nearest counts.

        As `fake_server`, whose arguments are the script of all.
        """
        self._service.scripts[key, pipeline] = script_of(
            results,
            delays=delays,
            failed=failed,
            error=error,
            queued=queued,
            estimates=estimates,
            origins=origins,
            needs=needs,
            items=items,
            streams=streams,
        )

    def fail(
        self, error: HeadstartError, *, method: str | None = None, times: int | None = None
    ) -> None:
        """Answer later calls with the error that the client shall raise, until `recover()`.

        Args:
            error: For example `ResourceExhausted("full", retry_after=2.0)`, which is sent with
                RetryInfo; `ServiceUnavailable("away")`, which clients retry a few times first.
            method: Only this one, such as "StartPrecompute". Default: all.
            times: Only so many calls.
        """
        self._check_method(method)
        self._faults.append(_Fault(error, method, math.inf if times is None else times))

    def slow(self, seconds: float, *, method: str | None = None) -> None:
        """Answer later calls, or those of one method, so much later, until `recover()`."""
        self._check_method(method)
        self._slowness[method] = seconds

    def recover(self) -> None:
        """Undo `fail` and `slow`."""
        self._faults.clear()
        self._slowness.clear()

    def seen(self, method: str) -> list[RecordedRequest]:
        """Return the requests of one method, such as "StartPrecompute"."""
        self._check_method(method)
        return [request for request in self.requests if request.method == method]

    def reported(self, key: str, *, namespace: str = "default") -> list[ReportedStep]:
        """Return what callers have handed in of a key by ReportStep, in the order of arrival.

        Reports whose form was refused are in `requests` alone. `get_or_compute(…, report=True)`
        reports after it has returned: close the client first, which awaits its reports.
        """
        return [
            each
            for each in list(self._service.reported)
            if (each.namespace, each.key) == (namespace, key)
        ]

    def stop(self) -> None:
        """Stop listening: connections are refused, and calls under way end UNAVAILABLE."""
        self._run(self._stop())

    def start(self) -> None:
        """Listen (again, on the same port). Runs are still known."""
        self._run(self._start())

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    @staticmethod
    def _check_method(method: str | None) -> None:
        if method is not None and method not in _SERVICE.methods_by_name:
            known = ", ".join(_SERVICE.methods_by_name)
            raise ValueError(f"no such method: {method}; there are {known}")

    async def _start(self) -> None:
        if self._server is None:
            server = grpc.aio.server(
                options=[
                    # Two servers must not share a port unnoticed.
                    ("grpc.so_reuseport", 0),
                    # The same setting as the service has: clients ping idle connections once a
                    # minute.
                    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                    ("grpc.keepalive_permit_without_calls", 1),
                ]
            )
            handlers = {
                name: self._handler(method) for name, method in _SERVICE.methods_by_name.items()
            }
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(_SERVICE.full_name, handlers),)
            )
            self._port = server.add_insecure_port(f"127.0.0.1:{self._port}")
            await server.start()
            self._server = server

    async def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)

    def _handler(self, method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
        """Serve a method of the contract by the service's function of its name."""
        request_type = GetMessageClass(method.input_type)
        if method.server_streaming:  # there is one such method
            return grpc.unary_stream_rpc_method_handler(
                self._watch,
                request_deserializer=request_type.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
        name = re.sub("(?<!^)([A-Z])", r"_\1", method.name).lower()
        return self._unary(request_type, getattr(self._service, name))

    def _unary(self, request_type: Any, answer: Answer) -> grpc.RpcMethodHandler[Any, Any]:
        async def handle(request: Message, context: Context) -> Message:
            try:
                await self._receive(request, context)
                return await answer(request, context)
            except Exception as error:
                await abort(context, error)
                raise AssertionError from error  # unreachable: abort raises

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=request_type.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    async def _watch(
        self, request: pb.WatchResultsRequest, context: Context
    ) -> AsyncIterator[pb.WatchResultsResponse]:
        try:
            await self._receive(request, context)
            async with aclosing(self._service.watch_results(request)) as responses:
                async for response in responses:
                    yield response
        except HeadstartError as error:
            await abort(context, error)

    async def _receive(self, request: Message, context: Context) -> None:
        """Record the request, then delay and fail it as scripted."""
        method = type(request).__name__.removesuffix("Request")
        metadata = dict(context.invocation_metadata() or ())
        self.requests.append(RecordedRequest(method, request, metadata))
        if delay := self._slowness.get(method, self._slowness.get(None, 0.0)):
            await asyncio.sleep(delay)
        for fault in list(self._faults):
            if fault.left > 0 and fault.method in {None, method}:
                fault.left -= 1
                raise fault.error
