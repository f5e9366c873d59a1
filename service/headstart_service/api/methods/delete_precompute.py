"""DeletePrecompute: removes a run and its results."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from headstart.v1 import precompute_pb2 as pb

from ...domain import RunKey
from ...domain.errors import Violation
from ..dependencies import Call, Dependencies
from ..request_rules import checked_key, refuse, revision_violations
from ..write_log import UNCHANGED, of_write

log = logging.getLogger(__name__)

METHOD: Final = "DeletePrecompute"


@dataclass(frozen=True, slots=True)
class Delete:
    """A valid deletion of a run with this revision; 0 means any."""

    key: RunKey
    revision: int


class DeletePrecompute:
    """Deletes a run from the store, and from what this process keeps."""

    def __init__(self, api: Dependencies) -> None:
        self._store, self._reader = api.store, api.reader

    def parse(self, request: pb.DeletePrecomputeRequest) -> Delete:
        """Return the deletion that the request asks for. Raises InvalidRequest."""
        violations: list[Violation] = []
        key = checked_key(request, violations)
        violations += revision_violations("revision", request.revision)
        refuse(violations)
        return Delete(key, request.revision)

    async def handle(
        self, request: pb.DeletePrecomputeRequest, call: Call
    ) -> pb.DeletePrecomputeResponse:
        """Delete the run, if there is one."""
        delete = self.parse(request)
        key = delete.key
        deleted = await self._store.delete(key, delete.revision)
        self._reader.outdate(key)
        outcome = "deleted" if deleted else UNCHANGED
        log.info("%s %s", key, outcome, extra=of_write(call, METHOD, outcome, key))
        return pb.DeletePrecomputeResponse(namespace=key.namespace, key=key.key, deleted=deleted)
