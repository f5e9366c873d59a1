"""`GET /metrics`: who may scrape, and what is answered."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette

from headstart_service.domain.errors import PermissionDenied, Unauthenticated
from headstart_service.http.metrics import metrics_route


@pytest.mark.parametrize(
    ("error", "code", "body", "asks"),
    [
        (None, 200, b"a 1\n", None),
        (Unauthenticated("a token is needed"), 401, b"a token is needed\n", b"Bearer"),
        (PermissionDenied("authorization", "lacks it", "metrics"), 403, b"lacks it\n", None),
    ],
)
async def test_figures_are_for_those_whom_the_check_lets_pass(
    error: Exception | None, code: int, body: bytes, asks: bytes | None
) -> None:
    checked: list[str | None] = []

    def check(header: str | None) -> None:
        checked.append(header)
        if error:
            raise error

    async def text() -> str:
        return "a 1\n"

    for guard in (check, None):
        app = Starlette(routes=[metrics_route(text, guard)])
        sent: list[Any] = []

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request"}

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/metrics",
            "query_string": b"",
            "headers": [(b"authorization", b"Bearer t")],
        }
        await app(scope, receive, send)
        start, answer = sent
        headers = dict(start["headers"])
        if guard is None:
            assert (start["status"], answer["body"]) == (200, b"a 1\n")
        else:
            assert start["status"] == code
            assert answer["body"].endswith(body)
            assert headers.get(b"www-authenticate") == asks
        if start["status"] == 200:
            assert headers[b"content-type"] == b"text/plain; version=0.0.4; charset=utf-8"
    assert checked == ["Bearer t"]
