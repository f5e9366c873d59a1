"""CancelPrecompute: ends a live run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from headstart.v1 import precompute_pb2 as pb

from ...domain import RunKey
from ...domain.errors import Violation
from .. import messages
from ..dependencies import Call, Dependencies
from ..request_rules import checked_key, refuse, revision_violations
from ..write_log import UNCHANGED, of_write

log = logging.getLogger(__name__)

METHOD: Final = "CancelPrecompute"


@dataclass(frozen=True, slots=True)
class Cancel:
    """A valid cancellation of a run with this revision; 0 means any."""

    key: RunKey
    revision: int


class CancelPrecompute:
    """Cancels a run in the store."""

    def __init__(self, api: Dependencies) -> None:
        self._store, self._reader = api.store, api.reader

    def parse(self, request: pb.CancelPrecomputeRequest) -> Cancel:
        """Return the cancellation that the request asks for. Raises InvalidRequest."""
        violations: list[Violation] = []
        key = checked_key(request, violations)
        violations += revision_violations("revision", request.revision)
        refuse(violations)
        return Cancel(key, request.revision)

    async def handle(
        self, request: pb.CancelPrecomputeRequest, call: Call
    ) -> pb.CancelPrecomputeResponse:
        """Cancel the run, unless it has ended. Raises RunNotFound."""
        cancel = self.parse(request)
        key = cancel.key
        cancelled = await self._store.cancel(key, cancel.revision)
        self._reader.outdate(key)
        outcome = "cancelled" if cancelled.cancelled else UNCHANGED
        extra = of_write(call, METHOD, outcome, key, revision=cancelled.revision)
        log.info("%s revision %d %s", key, cancelled.revision, outcome, extra=extra)
        return pb.CancelPrecomputeResponse(
            namespace=key.namespace,
            key=key.key,
            cancelled=cancelled.cancelled,
            status=messages.status(cancelled.status),
            revision=cancelled.revision,
        )
