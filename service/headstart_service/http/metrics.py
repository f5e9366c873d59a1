"""`GET /metrics`: what Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ..domain.errors import HeadstartError, PermissionDenied, Unauthenticated

Noted = Callable[[HeadstartError, Request], None]
"""Called with the error of a request that is refused."""
_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_route(
    text: Callable[[], Awaitable[str]],
    check: Callable[[str | None], None] | None,
    refused: Noted | None = None,
) -> Route:
    """Answer with `text`, once `check` has let the Authorization header pass.

    Its errors become answers: Unauthenticated is 401, PermissionDenied is 403. `refused` gets them.
    """

    async def metrics(request: Request) -> Response:
        if check is not None:
            try:
                _checked(check, request, refused)
            except Unauthenticated as error:
                asks = {"WWW-Authenticate": "Bearer"}
                return PlainTextResponse(f"{error}\n", status_code=401, headers=asks)
            except PermissionDenied as error:
                return PlainTextResponse(f"{error}\n", status_code=403)
        return PlainTextResponse(await text(), headers={"Content-Type": _TYPE})

    return Route("/metrics", metrics)


def _checked(check: Callable[[str | None], None], request: Request, refused: Noted | None) -> None:
    try:
        check(request.headers.get("authorization"))
    except HeadstartError as error:
        if refused is not None:
            refused(error, request)
        raise
