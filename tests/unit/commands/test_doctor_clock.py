from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from headstart_service.commands.doctor.clock import check_clock, judged
from headstart_service.commands.doctor.report import Verdict

Serve = Callable[[timedelta | None], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts an HTTP server whose clock is ahead by so much, or that tells no time."""
    servers = []

    def start(ahead: timedelta | None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # its base names it
                self.send_response_only(200)
                if ahead is not None:
                    now = datetime.now(UTC) + ahead
                    self.send_header("Date", format_datetime(now, usegmt=True))
                self.end_headers()

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("ahead", "verdict", "said"),
    [
        (timedelta(), Verdict.OK, "agrees"),
        (timedelta(hours=1), Verdict.WARN, "s ahead of this machine's"),
        (timedelta(hours=-1), Verdict.WARN, "s behind this machine's"),
        (None, Verdict.SKIP, "tells no time"),
    ],
)
def test_a_clock_is_compared_by_the_date_of_http(
    serve: Serve, ahead: timedelta | None, verdict: Verdict, said: str
) -> None:
    check = check_clock(serve(ahead), 10)
    assert check.verdict is verdict
    assert said in check.found


def test_a_server_that_sends_no_time_is_no_fault() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        check = check_clock(f"127.0.0.1:{reserved.getsockname()[1]}", 1)
    assert check.verdict is Verdict.SKIP
    assert "--http" in check.advice


def test_a_difference_within_the_error_of_measuring_is_none() -> None:
    assert judged("clock", 8.0, "the store's", 9.0).verdict is Verdict.OK
    assert judged("clock", 8.0, "the store's", 1.0).verdict is Verdict.WARN
    assert judged("clock", -8.0, "the store's", 1.0).verdict is Verdict.WARN
