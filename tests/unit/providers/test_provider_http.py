"""The HTTP client of steps, against a real server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from headstart_service.providers.http import http_client


class Handler(BaseHTTPRequestHandler):
    cookies: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.cookies.append(self.headers["Cookie"])
        self.send_response(302 if self.path == "/moved" else 200)
        self.send_header("Location", "/elsewhere")
        self.send_header("Set-Cookie", "session=of-one-user")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    Handler.cookies = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


async def test_it_gets_pages_keeps_no_cookies_and_follows_no_redirect(url: str) -> None:
    async with http_client() as http:
        first = await http.get(url)
        second = await http.get(f"{url}/moved")
    assert (first.status_code, first.text, second.status_code) == (200, "ok", 302)
    assert Handler.cookies == [None, None]


async def test_its_timeouts_and_connections_are_bounded_and_it_is_closed() -> None:
    async with http_client() as http:
        assert None not in http.timeout.as_dict().values()
        assert not http.is_closed
    assert http.is_closed
