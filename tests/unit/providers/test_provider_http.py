"""The HTTP client of steps, against a real server on loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import httpx2
import pytest

from headstart_service.providers.http import http_client
from headstart_service.worker.step_deadline import end_in, step_clock
from tests.support.waiting import wait_until


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


class Busy(BaseHTTPRequestHandler):
    """Answers as its path asks for: /<status>/<how often>/<Retry-After>, then 200."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[tuple[str, float]]] = []
    under_way: ClassVar[int] = 0
    most: ClassVar[int] = 0
    lock: ClassVar[threading.Lock] = threading.Lock()
    go_on: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        with self.lock:
            Busy.under_way += 1
            Busy.most = max(Busy.most, Busy.under_way)
            self.seen.append((self.path, time.monotonic()))
        if self.path == "/held":
            self.go_on.wait(20)
        _, status, times, after, *_ = [*self.path.split("/"), "0", "0", ""]
        count = [path for path, _ in self.seen].count(self.path)
        if status == "drop" and count <= int(times):
            Busy.under_way -= 1
            self.close_connection = True
            return
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.lock:
            Busy.under_way -= 1
        self.send_response(int(status) if status.isdigit() and count <= int(times) else 200)
        if after:
            self.send_header("Retry-After", after)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def busy() -> Iterator[str]:
    Busy.seen, Busy.most, Busy.under_way = [], 0, 0
    Busy.go_on.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        Busy.go_on.set()
        server.shutdown()


@pytest.mark.parametrize(
    ("method", "path", "status", "tries"),
    [
        ("GET", "/503/2", 200, 3),
        ("GET", "/503/9", 503, 3),
        ("POST", "/503/1", 503, 1),  # it may have done its work
        ("POST", "/429/1", 200, 2),
        ("GET", "/404/1", 404, 1),
        ("GET", "/drop/1", 200, 2),
        ("GET", "/429/1/3000", 429, 1),  # longer than the step has
    ],
)
async def test_it_repeats_what_may_pass(
    busy: str, method: str, path: str, status: int, tries: int
) -> None:
    async with http_client() as http:
        end_in(20.0)
        answer = await http.request(method, busy + path, content=b"x" if method == "POST" else None)
    assert (answer.status_code, len(Busy.seen)) == (status, tries)


async def test_it_waits_as_long_as_the_host_asks_for(busy: str) -> None:
    async with http_client() as http:
        assert (await http.get(f"{busy}/429/1/1")).status_code == 200
    (_, first), (_, second) = Busy.seen
    assert second - first >= 1.0


async def test_a_body_that_streams_and_a_lost_post_are_sent_once(busy: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    async with http_client() as http:
        assert (await http.post(f"{busy}/429/1", content=body())).status_code == 429
    # The host has not read that body, and closes its connection.
    async with http_client() as http:
        with pytest.raises(httpx2.RemoteProtocolError):
            await http.post(f"{busy}/drop/1", content=b"x")
    assert len(Busy.seen) == 2


async def test_a_refused_port_is_tried_again_and_its_error_is_the_steps() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with http_client(retries=1) as http:
            with pytest.raises(httpx2.ConnectError):
                await http.get(url)


async def test_a_host_gets_so_many_requests_at_once_and_the_wait_is_not_the_steps(
    busy: str,
) -> None:
    async with http_client(per_host=2) as http:
        clocks = []

        async def step() -> None:
            end_in(30.0)
            clocks.append(step_clock())
            async with http.stream("GET", f"{busy}/held") as answer:
                await answer.aread()

        steps = [asyncio.create_task(step()) for _ in range(6)]
        await wait_until(lambda: Busy.under_way == 2)
        before = [clock.left for clock in clocks]
        other = busy.replace("127.0.0.1", "localhost")
        assert (await http.get(other)).status_code == 200  # another host, in the meantime
        after = [clock.left for clock in clocks]
        assert [b == a for b, a in zip(before, after, strict=True)] == [False] * 2 + [True] * 4
        Busy.most = 2
        Busy.go_on.set()
        assert len(await asyncio.gather(*steps)) == 6
    assert Busy.most == 2


async def test_a_wait_for_a_turn_ends_and_a_cancelled_request_gives_its_turn_back(
    busy: str,
) -> None:
    async with http_client(per_host=1, wait=0.05) as http:
        held = asyncio.create_task(http.get(f"{busy}/held"))
        await wait_until(lambda: Busy.under_way == 1)
        with pytest.raises(
            httpx2.PoolTimeout, match=r"waited 0.05 s for one of 1 requests at once"
        ):
            await http.get(busy)
        held.cancel()
        await asyncio.wait({held})
        assert (await http.get(busy)).status_code == 200
