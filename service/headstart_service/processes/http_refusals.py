"""Logs what the HTTP port refuses beside the API: the metrics and the live page."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request

from ..api.refusals import REFUSED, Refusals
from ..auth.grants import Grants
from ..domain.errors import HeadstartError, Unauthenticated


def noted(refusals: Refusals, grants: Grants | None) -> Callable[[HeadstartError, Request], None]:
    """Return what notes the refusal of a request; another error is none."""

    def note(error: HeadstartError, request: Request) -> None:
        if not isinstance(error, REFUSED):
            return
        known = not isinstance(error, Unauthenticated)
        header = request.headers.get("authorization")
        peer = f"{request.client.host}:{request.client.port}" if request.client else ""
        refusals.note(
            f"{request.method} {request.url.path}",
            error,
            token=grants.name_of(header) if grants and known else "",
            peer=peer,
        )

    return note
