"""Starts runs: the methods of `PrecomputeClient` that begin a run, or skip one that is slow."""

# ruff: noqa: ASYNC109  (a timeout here becomes gRPC's deadline, which the server sees too)

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Final

from headstart._clients.late_starts import LateStarts
from headstart._errors import PermissionDenied, ResourceExhausted, Unauthenticated
from headstart._get_or_compute.budgeted_call import BUDGET, BudgetedCall, Experience, check_seconds
from headstart._messages import convert, requests
from headstart._messages.artifacts import Json
from headstart._messages.results import RecipientType, Started
from headstart._transport.connection import Connection
from headstart.v1 import precompute_pb2 as pb

# After such an answer of the service, reads may succeed.
_REFUSALS: Final = (ResourceExhausted, Unauthenticated, PermissionDenied)


class Starts:
    """Adds to `PrecomputeClient` the calls that start a run."""

    _connection: Connection
    _experience: Experience
    _timeout: float

    if TYPE_CHECKING:

        def _in(self, namespace: str | None) -> str: ...
        def _within(self, timeout: float | timedelta | None) -> float: ...

    def __init__(self) -> None:
        self._late_starts = LateStarts()

    async def start_bridging(
        self,
        key: str,
        anchor: str,
        target: str,
        recipient_type: RecipientType | str | Enum = RecipientType.HUMAN,
        *,
        clue_count: int | None = None,
        null_sample_count: int | None = None,
        ttl: float | timedelta | None = None,
        restart: bool = False,
        request_id: str | None = None,
        expected_need_in: float | timedelta | None = None,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Started:
        """Start computing what a bridging game will need, or join what is there already.

        Args:
            key: The caller's name for the run, for example a game's id; 1 to 256 bytes.
            anchor: A word of 1 to 64 characters.
            target: Another word.
            recipient_type: The player that answers: "human" or "haiku", or an enumeration's member
                of that value.
            clue_count: Words in a bridge, 1 to 50. Default: 5.
            null_sample_count: Random bridges to score, 1 to 10000. Default: 100.
            ttl: How long results live after the run has ended. Default: the server's, 30 minutes.
            restart: Compute anew even what is computed, or under way, already.
            request_id: A name for this start: 1 to 64 letters, digits, '.', '_' and '-'. A start
                with the `request_id` and inputs of the start that made the key's run changes
                nothing, and returns that start's outcome and revision. Default: a random one for a
                `restart`, so that the client's own retries start it once. Give one where your
                code may repeat the call itself.
            expected_need_in: In how long a caller is likely to read the results, at most 7 days.
                Default: at once. Runs that wait for a worker are taken in that order; one that
                cannot be ready by then may be left for later, or given up when the queue is full.
            namespace: Instead of the client's.
            timeout: How long to wait for the answer, which does not wait for the run.

        Raises:
            ResourceExhausted: Every place is held by a run that has not ended.
        """
        request = requests.start_bridging(
            self._in(namespace),
            key,
            anchor,
            target,
            recipient_type,
            clue_count=clue_count,
            null_sample_count=null_sample_count,
            ttl=ttl,
            restart=restart,
            request_id=request_id,
            expected_need_in=expected_need_in,
        )
        return await self._start(request, self._within(timeout))

    async def start(
        self,
        key: str,
        pipeline: str,
        inputs: Mapping[str, Json],
        *,
        ttl: float | timedelta | None = None,
        restart: bool = False,
        request_id: str | None = None,
        expected_need_in: float | timedelta | None = None,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Started:
        """Start any pipeline of `list_pipelines()`; else as `start_bridging()`.

        `inputs` are JSON values. They arrive as they are, whole numbers of up to 640 digits too.

        Raises:
            ResourceExhausted: Every place is held by a run that has not ended.
        """
        request = requests.start(
            self._in(namespace),
            key,
            pipeline,
            inputs,
            ttl=ttl,
            restart=restart,
            request_id=request_id,
            expected_need_in=expected_need_in,
        )
        return await self._start(request, self._within(timeout))

    async def start_or_skip(
        self,
        key: str,
        pipeline: str,
        inputs: Mapping[str, Json],
        *,
        budget: float | timedelta = BUDGET,
        ttl: float | timedelta | None = None,
        restart: bool = False,
        request_id: str | None = None,
        expected_need_in: float | timedelta | None = None,
        namespace: str | None = None,
    ) -> Started | None:
        """Start a run, or go on without it: a page that calls this takes `budget` longer at most.

            started = await headstart.start_or_skip("page-1", "recommendations", {"text": text})
            revision = started.revision if started else 0

        A start that takes longer goes on behind the call, within the client's `timeout`: late, it
        is still a head start. The next start of the same key by this client cancels it. After three
        calls in a row that failed or had no answer, the client makes no call for a while.
        `get_or_compute` shares this knowledge. The logger `headstart` has one WARNING when
        that begins, and one INFO when it is over.

        Args:
            key: As in `start`.
            pipeline: As in `start`.
            inputs: As in `start`.
            budget: How long the caller waits for the service's answer.
            ttl: As in `start`.
            restart: As in `start`.
            request_id: As in `start`.
            expected_need_in: As in `start`.
            namespace: Instead of the client's.

        Returns:
            What `start` returns; None if the service is away, hangs, is overloaded or refuses this
            client, or if the answer took longer than the budget. Then a key that had other inputs
            before still has their results: compute live instead of reading them.

        Raises:
            InvalidRequest: The request breaks rules, and the answer came within the budget.
            ValueError: `budget` is out of range.
            TypeError: An argument of a wrong type.
        """
        request = requests.start(
            self._in(namespace),
            key,
            pipeline,
            inputs,
            ttl=ttl,
            restart=restart,
            request_id=request_id,
            expected_need_in=expected_need_in,
        )
        return await self._start_or_skip(request, budget)

    async def start_bridging_or_skip(
        self,
        key: str,
        anchor: str,
        target: str,
        recipient_type: RecipientType | str | Enum = RecipientType.HUMAN,
        *,
        budget: float | timedelta = BUDGET,
        clue_count: int | None = None,
        null_sample_count: int | None = None,
        ttl: float | timedelta | None = None,
        restart: bool = False,
        request_id: str | None = None,
        expected_need_in: float | timedelta | None = None,
        namespace: str | None = None,
    ) -> Started | None:
        """Start a bridging game, or go on without it, as `start_or_skip`.

        The other arguments are those of `start_bridging`.
        """
        request = requests.start_bridging(
            self._in(namespace),
            key,
            anchor,
            target,
            recipient_type,
            clue_count=clue_count,
            null_sample_count=null_sample_count,
            ttl=ttl,
            restart=restart,
            request_id=request_id,
            expected_need_in=expected_need_in,
        )
        return await self._start_or_skip(request, budget)

    async def _start(self, request: pb.StartPrecomputeRequest, limit: float) -> Started:
        self._late_starts.outdate((request.namespace, request.key))
        return await self._send(request, limit)

    async def _send(self, request: pb.StartPrecomputeRequest, limit: float) -> Started:
        return convert.started_from(
            await self._connection.call(lambda stub: stub.StartPrecompute, request, limit)
        )

    async def _start_or_skip(
        self, request: pb.StartPrecomputeRequest, budget: float | timedelta
    ) -> Started | None:
        seconds = check_seconds("budget", budget)
        start = self._late_starts.begin((request.namespace, request.key))
        started: Started | None = None

        async def call() -> bool:
            nonlocal started
            started = await self._send(request, self._timeout)
            return True

        ask = BudgetedCall(
            self._experience, "start_or_skip", of_this_call=_REFUSALS, raises_refusal=True
        )
        try:
            late = await ask.within(seconds, call)
            if late is not None:
                self._late_starts.leave(start, late, closed=self._connection.closed)
                return None
        finally:
            self._late_starts.end(start)
        if ask.refused is not None:
            raise ask.refused
        return started
