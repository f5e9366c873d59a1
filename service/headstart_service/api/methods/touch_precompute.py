"""TouchPrecompute: lets a run's results live longer."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from headstart.v1 import precompute_pb2 as pb

from ...domain import RunKey
from ...domain.errors import Violation
from .. import messages
from ..dependencies import Call, Dependencies
from ..request_rules import MAX_TTL, MIN_TTL, checked_key, refuse, revision_violations, seconds
from ..write_log import of_write

log = logging.getLogger(__name__)

METHOD: Final = "TouchPrecompute"


@dataclass(frozen=True, slots=True)
class Touch:
    """A valid touch of a run with this revision; 0 means any. `ttl` is in seconds."""

    key: RunKey
    ttl: float
    revision: int


class TouchPrecompute:
    """Prolongs a run's life in the store."""

    def __init__(self, api: Dependencies) -> None:
        self._api = api

    def parse(self, request: pb.TouchPrecomputeRequest) -> Touch:
        """Return the touch that the request asks for. Raises InvalidRequest."""
        violations: list[Violation] = []
        key = checked_key(request, violations)
        ttl = seconds(request, "ttl", MIN_TTL, MAX_TTL, self._api.rules.result_ttl, violations)
        violations += revision_violations("revision", request.revision)
        refuse(violations)
        return Touch(key, ttl, request.revision)

    async def handle(
        self, request: pb.TouchPrecomputeRequest, call: Call
    ) -> pb.TouchPrecomputeResponse:
        """Prolong the run's life. Raises RunNotFound."""
        touch = self.parse(request)
        key = touch.key
        touched = await self._api.store.touch(key, touch.ttl, touch.revision)
        self._api.reader.outdate(key)
        extra = of_write(call, METHOD, "touched", key, revision=touched.revision, ttl=touch.ttl)
        log.info("%s revision %d kept for %g s", key, touched.revision, touch.ttl, extra=extra)
        response = pb.TouchPrecomputeResponse(
            namespace=key.namespace,
            key=key.key,
            status=messages.status(touched.status),
            revision=touched.revision,
        )
        messages.fill_time(response.expires_at, touched.expires_us)
        return response
