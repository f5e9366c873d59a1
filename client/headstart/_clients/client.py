"""The asyncio client."""

# ruff: noqa: ASYNC109  (a timeout here becomes gRPC's deadline, which the server sees too)

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from headstart._clients.batches import Batches
from headstart._clients.changes import Changes
from headstart._clients.starts import Starts
from headstart._clients.watch import stream, watch
from headstart._get_or_compute.get_or_compute import GetsOrComputes
from headstart._messages import arguments, convert, requests
from headstart._messages.descriptions import PipelineDescription, Stats
from headstart._messages.results import Page, PrecomputeStatus, Results, RunSummary, Status
from headstart._messages.stream_pieces import StreamPiece
from headstart._transport.connection import Connection, Method
from headstart._transport.endpoint import ChannelOption, endpoint
from headstart._transport.security import Tls
from headstart.v1 import precompute_pb2 as pb

Request = TypeVar("Request")
Response = TypeVar("Response")


class PrecomputeClient(GetsOrComputes, Starts, Batches, Changes):
    """Calls the Headstart service from asyncio.

        async with PrecomputeClient() as headstart:
            await headstart.start_bridging_or_skip("game-1", "ocean", "forest", "haiku")
            ...
            results = await headstart.get_results("game-1", wait=2.0)

    The connection opens with the first call and belongs to that call's event loop. Make one client
    per loop, and share it among all tasks there. Without `async with`, call `close()` in the end.
    A process may fork at any time; a child uses the client in a loop of its own.

    Every method raises `HeadstartError`'s subclasses: `ServiceUnavailable` when no server answers
    (calls are retried a few times first), `DeadlineExceeded` when no answer comes in time.
    `InvalidRequest` means that the service refuses the arguments. Others are `Unauthenticated`,
    `PermissionDenied`, and `ServiceError` for anything else. Further ones are named where they
    occur. Arguments of a wrong type raise TypeError.

    Durations are seconds, as int or float, or a `timedelta`. `timeout` is how long the service may
    take to answer one call; None means the client's own. A method's `namespace` overrides the
    client's.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        namespace: str = "",
        timeout: float | timedelta = 5.0,
        max_attempts: int = 4,
        tls: Tls | None = None,
        channel_credentials: grpc.ChannelCredentials | None = None,
        call_credentials: grpc.CallCredentials | None = None,
        token: str | Callable[[], str] | None = None,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
        options: Sequence[ChannelOption] = (),
    ) -> None:
        """Remember the settings; nothing is opened yet.

        Args:
            address: Any gRPC target, such as `localhost:50051`, `[::1]:50051`,
                `dns:///headstart:50051` or `unix:/run/headstart.sock`; a host without a port gets
                50051. Calls are spread over all addresses it resolves to. Default: the environment
                variable `HEADSTART_ADDRESS`, else `localhost:50051`.
            namespace: Separates callers' keys. Empty means "default" for a run, and every
                namespace for lists and counts.
            timeout: How long the service may take to answer one call, retries included.
            max_attempts: How often a call is tried while the service is UNAVAILABLE, 1 to 5.
            tls: The files of TLS, which are read again within a second of a change. Default: those
                of the environment variables `HEADSTART_CA` ("system" for the authorities that gRPC
                comes with), `HEADSTART_CLIENT_CERT`, `HEADSTART_CLIENT_KEY` and
                `HEADSTART_SERVER_NAME`, else plaintext.
            channel_credentials: Instead of `tls`, gRPC's own credentials.
            call_credentials: gRPC's own per-call credentials; they need `channel_credentials`.
            token: Sent as `authorization: Bearer …` with every call, or a function that is asked
                for it every time. Over plaintext too, for networks that encrypt by themselves.
                Default: `HEADSTART_TOKEN`, else the content of the file `HEADSTART_TOKEN_FILE`,
                which is read again within a second of a change.
            interceptors: Of grpc.aio, for example OpenTelemetry's.
            options: Further gRPC channel arguments. Each replaces the client's own of its name.

        Raises:
            ValueError: A setting out of range, or an address that names no server.
            TypeError: A setting of a wrong type.
        """
        seconds = arguments.timeout("timeout", timeout)
        interceptors = arguments.items(
            "interceptors", interceptors, grpc.aio.ClientInterceptor, "grpc.aio.ClientInterceptor"
        )
        settings = endpoint(
            address,
            tls=tls,
            channel_credentials=channel_credentials,
            call_credentials=call_credentials,
            token=token,
            max_attempts=max_attempts,
            options=options,
        )
        GetsOrComputes.__init__(self)
        Starts.__init__(self)
        self._connection = Connection(settings, interceptors)
        self._namespace = requests.text("namespace", namespace)
        self._timeout = seconds

    async def __aenter__(self) -> Self:
        """Return the client itself, still unconnected."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()

    async def close(self, grace: float | timedelta | None = None) -> None:
        """Close the connection for good; harmless when done twice.

        Calls under way get `grace` seconds to end, then raise ServiceUnavailable. Reports that
        `get_or_compute` left behind, and late starts of `start_or_skip`, get half a second.
        """
        limit = arguments.optional_seconds("grace", grace)
        await asyncio.gather(self._end_reports(), self._late_starts.close())
        await self._connection.close(limit)

    async def connect(self, timeout: float | timedelta | None = None) -> None:
        """Open the connection now rather than with the first call.

        Raises:
            ServiceUnavailable: As soon as an attempt to connect has failed, or after `timeout`.
                The client goes on trying in the background.
        """
        await self._connection.connect(self._within(timeout))

    async def get_results(
        self,
        key: str,
        *,
        wait: float | timedelta = 0.0,
        required_steps: Iterable[str] = (),
        result_steps: Iterable[str] = (),
        min_revision: int = 0,
        partial_results: bool = False,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Results:
        """Return whatever exists of a run's results, after waiting at most `wait`.

        Args:
            key: As it was started.
            wait: How long to wait for `required_steps`, up to 10 minutes; then the answer is
                partial: see `Results.missing`.
            required_steps: What to wait for. Default: all steps.
            result_steps: The steps whose results are wanted. Default: all.
            min_revision: Answer with no earlier run of this key; `Started.revision` has it.
            partial_results: Also return what steps that stream have given: `Results.partials`.
            namespace: Instead of the client's.
            timeout: How long the answer may take beyond `wait`.

        Raises:
            NotFound: Nothing is kept under this key.
        """
        wait_seconds = requests.seconds("wait", wait)
        request = requests.get_results(
            self._in(namespace),
            key,
            wait=wait_seconds,
            required_steps=required_steps,
            result_steps=result_steps,
            min_revision=min_revision,
            partial_results=partial_results,
        )
        # The deadline is later than the end of the wait, so that the partial answer then still
        # arrives.
        allowed = self._within(timeout) + max(0.0, wait_seconds)
        return convert.results_from(
            await self._connection.call(lambda stub: stub.GetResults, request, allowed)
        )

    def watch_results(
        self,
        key: str,
        *,
        result_steps: Iterable[str] = (),
        partial_results: bool = False,
        namespace: str | None = None,
    ) -> AsyncGenerator[Results, None]:
        """Yield the results as they grow: what exists at once, then each change, then the end.

        The last item's status has ended. A stream that is cut (a server restarts, or rebalances)
        is resumed, without repeating what was yielded. There is no timeout: use
        `asyncio.timeout()` around it, and `contextlib.aclosing()` when leaving early.

        Args:
            key: As it was started.
            result_steps: The steps whose results are wanted. Default: all.
            partial_results: Also yield when steps that stream give something: `Results.partials`
                has all that they have given. `stream` follows one step alone.
            namespace: Instead of the client's.

        Raises:
            NotFound: Nothing is kept under this key (any more).
            ServiceUnavailable: Resuming failed several times in a row.
        """
        place = self._in(namespace)
        request = pb.WatchResultsRequest(
            namespace=place,
            key=requests.text("key", key),
            result_steps=requests.texts("result_steps", result_steps),
            partial_results=arguments.flag("partial_results", partial_results),
        )
        return watch(self._connection, request)

    def stream(
        self, key: str, step: str, *, namespace: str | None = None
    ) -> AsyncGenerator[StreamPiece, None]:
        """Yield what a step gives before it ends, as it gives it; then return.

            async for piece in headstart.stream("page-1", "draft"):
                print(piece.text, end="", flush=True)

        A stream that is cut is resumed: no piece is repeated or missed. When the step begins anew,
        because it is tried again or its worker was lost, a piece is `restarted`. A step that does
        not stream, or has ended, gives its result in one piece. There is no timeout, as in
        `watch_results`.

        Args:
            key: As it was started.
            step: A step of the run.
            namespace: Instead of the client's.

        Raises:
            NoResult: The step has failed, or was skipped, or its run ended before it.
            NotFound: Nothing is kept under this key (any more).
            ServiceUnavailable: Resuming failed several times in a row.
        """
        name = requests.text("step", step)
        request = pb.WatchResultsRequest(
            namespace=self._in(namespace),
            key=requests.text("key", key),
            result_steps=[name],
            partial_results=True,
        )
        return stream(self._connection, request, name)

    async def get_status(
        self, key: str, *, namespace: str | None = None, timeout: float | timedelta | None = None
    ) -> Status:
        """Return a run's status without its results; this does not count as reading them.

        Raises:
            NotFound: Nothing is kept under this key.
        """
        place = self._in(namespace)
        request = pb.GetStatusRequest(namespace=place, key=requests.text("key", key))
        return convert.run_status_from(
            await self._call(lambda stub: stub.GetStatus, request, timeout)
        )

    async def list(
        self,
        *,
        statuses: Iterable[PrecomputeStatus | str] = (),
        key_prefix: str = "",
        pipeline: str = "",
        page_size: int = 0,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> AsyncGenerator[RunSummary, None]:
        """Yield every run that is kept, in a stable order, asking for pages as needed.

        Args:
            statuses: Only these. Default: all.
            key_prefix: Only keys that begin so; not with an empty namespace.
            pipeline: Only runs of this one.
            page_size: Runs per call, 1 to 1000. Default: the server's, 100.
            namespace: Instead of the client's; empty lists every namespace.
            timeout: How long each page may take.
        """
        wanted = arguments.texts("statuses", statuses)
        token = ""
        while True:
            page = await self.list_page(
                statuses=wanted,
                key_prefix=key_prefix,
                pipeline=pipeline,
                page_size=page_size,
                page_token=token,
                namespace=namespace,
                timeout=timeout,
            )
            for run in page.runs:
                yield run
            token = page.next_page_token
            if not token:
                return

    async def list_page(
        self,
        *,
        statuses: Iterable[PrecomputeStatus | str] = (),
        key_prefix: str = "",
        pipeline: str = "",
        page_size: int = 0,
        page_token: str = "",
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Page:
        """Return one page of `list()`; `page_token` is the previous page's `next_page_token`.

        A page may be short, or empty, before the last one.
        """
        request = requests.list_precomputes(
            self._in(namespace),
            page_size=page_size,
            page_token=page_token,
            statuses=statuses,
            key_prefix=key_prefix,
            pipeline=pipeline,
        )
        return convert.page_from(
            await self._call(lambda stub: stub.ListPrecomputes, request, timeout)
        )

    async def list_pipelines(
        self, *, timeout: float | timedelta | None = None
    ) -> tuple[PipelineDescription, ...]:
        """Return the pipelines that can be started, by name, asking for pages as needed.

        Args:
            timeout: How long each page may take.
        """
        found: list[PipelineDescription] = []
        request = pb.ListPipelinesRequest()
        while True:
            answer = await self._call(lambda stub: stub.ListPipelines, request, timeout)
            found += map(convert.pipeline_from, answer.pipelines)
            if not answer.next_page_token:
                return tuple(found)
            request.page_token = answer.next_page_token

    async def get_stats(
        self, *, namespace: str | None = None, timeout: float | timedelta | None = None
    ) -> Stats:
        """Count what is kept and running; an empty namespace counts every one."""
        request = pb.GetStatsRequest(namespace=self._in(namespace))
        return convert.stats_from(await self._call(lambda stub: stub.GetStats, request, timeout))

    def _in(self, namespace: str | None) -> str:
        own = arguments.optional_text("namespace", namespace)
        return self._namespace if own is None else requests.text("namespace", own)

    def _within(self, timeout: float | timedelta | None) -> float:
        """Return a call's timeout in seconds: its own, else the client's."""
        return arguments.optional_timeout("timeout", timeout) or self._timeout

    async def _call(
        self,
        method: Method[Request, Response],
        request: Request,
        timeout: float | timedelta | None,
    ) -> Response:
        return await self._connection.call(method, request, self._within(timeout))
