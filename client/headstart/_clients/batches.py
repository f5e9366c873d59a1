"""Calls about many runs: the methods of `PrecomputeClient` that start, get or watch many."""

# ruff: noqa: ASYNC109  (a timeout here becomes gRPC's deadline, which the server sees too)

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from headstart._clients.watch import error_of, watch_keys
from headstart._errors import HeadstartError
from headstart._messages import arguments, convert, requests
from headstart._messages.artifacts import Json
from headstart._messages.results import Results, Started
from headstart._transport.connection import Connection
from headstart.v1 import precompute_pb2 as pb

_MOST_STARTS: Final = 1000
"""Starts of one call; more are sent in further ones."""


@dataclass(frozen=True, slots=True)
class Start:
    """One start of `start_many`; its fields are the arguments of `start`."""

    key: str
    pipeline: str
    inputs: Mapping[str, Json]
    _: KW_ONLY
    ttl: float | timedelta | None = None
    restart: bool = False
    request_id: str | None = None
    expected_need_in: float | timedelta | None = None
    namespace: str | None = None


class Batches:
    """Adds to `PrecomputeClient` the calls about many runs."""

    _connection: Connection

    if TYPE_CHECKING:

        def _in(self, namespace: str | None) -> str: ...
        def _within(self, timeout: float | timedelta | None) -> float: ...

    async def start_many(
        self, starts: Iterable[Start], *, timeout: float | timedelta | None = None
    ) -> list[Started | HeadstartError]:
        """Start many runs; return for each what `start` returns, or the error that it raises.

        A start that is refused keeps no other from being done. More than 1,000 starts are sent in
        several calls, one after the other.

        Args:
            starts: What to start. Two starts of one key are done in their order.
            timeout: How long each call may take.

        Raises:
            HeadstartError: A call failed as a whole; earlier ones are done.
        """
        found: list[Started | HeadstartError] = []
        messages = [
            self._start_request(start)
            for start in arguments.items("starts", starts, Start, "headstart.Start")
        ]
        for first in range(0, len(messages), _MOST_STARTS):
            batch = pb.BatchStartPrecomputesRequest(requests=messages[first : first + _MOST_STARTS])
            answer = await self._connection.call(
                lambda stub: stub.BatchStartPrecomputes, batch, self._within(timeout)
            )
            found += [
                error_of(result.error)
                if result.HasField("error")
                else convert.started_from(result.response)
                for result in answer.results
            ]
        return found

    async def get_many(
        self,
        keys: Iterable[str],
        *,
        wait: float | timedelta = 0.0,
        required_steps: Iterable[str] = (),
        result_steps: Iterable[str] = (),
        min_ready: int = 0,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> dict[str, Results | HeadstartError]:
        """Return for each key what `get_results` returns, or the error that it raises.

        One call returns results of at most 62 MiB. A key whose result does not fit has
        ResourceExhausted, and one that was not read in time DeadlineExceeded.

        Args:
            keys: As they were started, at most 1,000. Without keys no call is made.
            wait: How long to wait for `required_steps` of all of them, up to 10 minutes.
            required_steps: What to wait for. Default: all steps.
            result_steps: The steps whose results are wanted. Default: all.
            min_ready: Wait for so many keys only; one with an error counts. Default: for all.
            namespace: Instead of the client's.
            timeout: How long the answer may take beyond `wait`.
        """
        wait_seconds = requests.seconds("wait", wait)
        request = requests.get_many(
            self._in(namespace),
            keys,
            wait=wait_seconds,
            required_steps=required_steps,
            result_steps=result_steps,
            min_ready=min_ready,
        )
        if not request.keys:
            return {}
        allowed = self._within(timeout) + max(0.0, wait_seconds)
        answer = await self._connection.call(lambda stub: stub.BatchGetResults, request, allowed)
        found = [
            error_of(result.error)
            if result.HasField("error")
            else convert.results_from(result.response)
            for result in answer.results
        ]
        return dict(zip(request.keys, found, strict=True))

    def watch_many(
        self,
        keys: Iterable[str],
        *,
        result_steps: Iterable[str] = (),
        namespace: str | None = None,
    ) -> AsyncGenerator[tuple[str, Results | HeadstartError], None]:
        """Yield (key, results) at once and after each change of any of the runs, until all end.

        The last item of a key has results whose status has ended, or an error such as NotFound.
        A stream that is cut is resumed, as by `watch_results`, and so is a key that is unavailable.

        Args:
            keys: As they were started, 1 to 1,000.
            result_steps: The steps whose results are wanted. Default: all.
            namespace: Instead of the client's.

        Raises:
            ServiceUnavailable: Resuming failed several times in a row.
        """
        request = requests.watch_many(self._in(namespace), keys, result_steps=result_steps)
        return watch_keys(self._connection, request)

    def _start_request(self, start: Start) -> pb.StartPrecomputeRequest:
        return requests.start(
            self._in(start.namespace),
            start.key,
            start.pipeline,
            start.inputs,
            ttl=start.ttl,
            restart=start.restart,
            request_id=start.request_id,
            expected_need_in=start.expected_need_in,
        )
