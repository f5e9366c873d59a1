"""GetStatus: returns the status of a run and of its steps, without results."""

from __future__ import annotations

from headstart.v1 import precompute_pb2 as pb

from ...domain import RunKey
from ...domain.errors import Violation
from ..dependencies import Call, Dependencies
from ..messages import status_response
from ..request_rules import checked_key, refuse


class GetStatus:
    """Reads a run's status from the store."""

    def __init__(self, api: Dependencies) -> None:
        self._store = api.store

    def parse(self, request: pb.GetStatusRequest) -> RunKey:
        """Return the run that the request names. Raises InvalidRequest."""
        violations: list[Violation] = []
        key = checked_key(request, violations)
        refuse(violations)
        return key

    async def handle(self, request: pb.GetStatusRequest, _: Call) -> pb.GetStatusResponse:
        """Return the run's status. Raises RunNotFound."""
        key = self.parse(request)
        return status_response(await self._store.status(key))
