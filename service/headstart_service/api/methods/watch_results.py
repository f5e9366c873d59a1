"""WatchResults: streams the results of a run as they grow."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from headstart.v1 import precompute_pb2 as pb

from ...domain import RunKey
from ...domain.errors import Violation
from ..dependencies import Call, Dependencies
from ..request_rules import checked_key, refuse
from ..results.answer import Message


class WatchResults:
    """Streams results. Its responses are serialized, because watchers of one run share them."""

    def __init__(self, api: Dependencies) -> None:
        self._reader = api.reader

    def parse(self, request: pb.WatchResultsRequest) -> RunKey:
        """Return the run to watch. Raises InvalidRequest."""
        violations: list[Violation] = []
        key = checked_key(request, violations)
        refuse(violations)
        return key

    async def handle(self, request: pb.WatchResultsRequest, _: Call) -> AsyncGenerator[Message]:
        """Yield the results now and after each change, until the run has ended."""
        key = self.parse(request)
        async with aclosing(self._reader.watch(key)) as watched:
            async for answer in watched:
                yield answer.message()
