"""`start_or_skip` of the asyncio client, and the late starts that it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Final

from headstart import _convert, _requests
from headstart._artifacts import Json
from headstart._asking import BUDGET, Ask, Experience, check_seconds, end_last
from headstart._connection import Connection
from headstart._errors import PermissionDenied, ResourceExhausted, Unauthenticated
from headstart._results import RecipientType, Started
from headstart.v1 import precompute_pb2 as pb

# More late starts than these at a time are given up.
_MOST_LATE: Final = 128
# The service has answered: reads may succeed.
_REFUSALS: Final = (ResourceExhausted, Unauthenticated, PermissionDenied)


class StartsOrSkips:
    """What `PrecomputeClient` offers for starts that a user's request makes."""

    _connection: Connection
    _experience: Experience
    _timeout: float

    if TYPE_CHECKING:

        def _in(self, namespace: str | None) -> str: ...

    def __init__(self) -> None:
        self._late_starts: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._newest: dict[tuple[str, str], object] = {}
        """Of each key with starts that are not late yet, the one that began last."""

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
        calls in a row that failed or had no answer, the service is not asked for a while, as in
        `get_or_compute`, which shares this knowledge. The logger `headstart` has one WARNING when
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
        request = _requests.start(
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
        request = _requests.start_bridging(
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
        self._outdate(request)
        return await self._send(request, limit)

    async def _send(self, request: pb.StartPrecomputeRequest, limit: float) -> Started:
        return _convert.started_from(
            await self._connection.call(lambda stub: stub.StartPrecompute, request, limit)
        )

    async def _start_or_skip(
        self, request: pb.StartPrecomputeRequest, budget: float | timedelta
    ) -> Started | None:
        seconds = check_seconds("budget", budget)
        self._outdate(request)
        whose, own = (request.namespace, request.key), object()
        self._newest[whose] = own
        started: Started | None = None

        async def call() -> bool:
            nonlocal started
            started = await self._send(request, self._timeout)
            return True

        ask = Ask(self._experience, "start_or_skip", of_this_call=_REFUSALS)
        try:
            late = await ask.within(seconds, call)
            if late is not None:
                self._leave(whose, late, newest=self._newest.get(whose) is own)
                return None
        finally:
            if self._newest.get(whose) is own:
                del self._newest[whose]
        if ask.refused is not None:
            raise ask.refused
        return started

    def _leave(self, whose: tuple[str, str], late: asyncio.Task[None], *, newest: bool) -> None:
        if not newest or len(self._late_starts) >= _MOST_LATE or self._connection.closed:
            late.cancel()
            return
        self._late_starts[whose] = late
        late.add_done_callback(partial(self._forget, whose))

    def _forget(self, whose: tuple[str, str], late: asyncio.Task[None]) -> None:
        if self._late_starts.get(whose) is late:
            del self._late_starts[whose]

    def _outdate(self, request: pb.StartPrecomputeRequest) -> None:
        """Give up starts of this key once they are late: their inputs are older than these."""
        whose = (request.namespace, request.key)
        self._newest.pop(whose, None)
        if late := self._late_starts.pop(whose, None):
            late.cancel()

    async def _end_late_starts(self) -> None:
        await end_last(self._late_starts.values())
