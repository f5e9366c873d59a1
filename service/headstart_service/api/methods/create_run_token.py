"""CreateRunToken: signs a token that allows its bearer to read one run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from headstart.v1 import precompute_pb2 as pb

from ...domain import RunKey
from ...domain.errors import NotConfigured, PermissionDenied, Violation
from ..dependencies import Call, Dependencies
from ..request_rules import checked_key, refuse, seconds
from ..write_log import of_write

log = logging.getLogger(__name__)

METHOD: Final = "CreateRunToken"
_MIN_LIFE: Final = 1.0
_MAX_LIFE: Final = 24 * 3600.0
_LIFE: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Create:
    """A valid request for a token for this run; `lives_for` is in seconds."""

    key: RunKey
    lives_for: float


class CreateRunToken:
    """Signs tokens with the server's key."""

    def __init__(self, api: Dependencies) -> None:
        self._grants = api.grants

    def parse(self, request: pb.CreateRunTokenRequest) -> Create:
        """Return what the request asks for. Raises InvalidRequest."""
        violations: list[Violation] = []
        key = checked_key(request, violations)
        lives_for = seconds(request, "ttl", _MIN_LIFE, _MAX_LIFE, _LIFE, violations)
        refuse(violations)
        return Create(key, lives_for)

    async def handle(
        self, request: pb.CreateRunTokenRequest, call: Call
    ) -> pb.CreateRunTokenResponse:
        """Sign a token. Raises NotConfigured, and PermissionDenied for a token for one run."""
        create = self.parse(request)
        if self._grants is None or call.grant is None:
            raise NotConfigured("this server asks for no tokens: see HEADSTART_TOKENS")
        if not self._grants.run_tokens.usable:
            raise NotConfigured(
                "the file of HEADSTART_TOKENS has no key: `headstart token NAME --verbs sign` "
                "writes its line"
            )
        if call.grant.run is not None:
            rule = f"the token {call.grant.name!r} may only read its run, not make another token"
            raise PermissionDenied("key", rule, "read")
        token, ends = self._grants.sign(create.key, call.grant, create.lives_for)
        extra = of_write(
            call, METHOD, "created", create.key, of="token", lives_for=create.lives_for
        )
        log.info("%s: a token for %g s created", create.key, create.lives_for, extra=extra)
        response = pb.CreateRunTokenResponse(token=token)
        response.expires_at.FromMilliseconds(ends)
        return response
