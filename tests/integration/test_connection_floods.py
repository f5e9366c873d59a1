"""Connections that send half a request, to a real process that may open few files."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.processes import Process, address_of, clean_environment, health
from tests.support.scrape import asked, http_of
from tests.support.valkey import Valkey

FILES = 200
CONNECTIONS = 300


@contextmanager
def flood(address: str, sent: bytes) -> Iterator[None]:
    """Hold so many connections, each of which has sent this."""
    host, port = address.rsplit(":", 1)
    held: list[socket.socket] = []
    try:
        for _ in range(CONNECTIONS):
            held.append(socket.create_connection((host, int(port)), timeout=20))
            with suppress(OSError):  # the server may have ended it
                held[-1].sendall(sent)
        yield
    finally:
        for connection in held:
            connection.close()


async def test_connections_that_send_half_a_request_take_neither_port(valkey: Valkey) -> None:
    environment = clean_environment() | {
        "HEADSTART_REDIS_URL": valkey.url,
        "HEADSTART_GRPC_PORT": "0",
        "HEADSTART_HTTP_PORT": "0",
        "HEADSTART_BRIDGING": "false",
    }
    serve = f"ulimit -n {FILES}; exec {sys.executable} -m headstart_service serve --no-worker"
    process = Process(["/bin/sh", "-c", serve], environment)
    try:
        address = await address_of(process)
        for port, half in ((await http_of(process), b"GET /livez HT"), (address, b"PRI * HT")):
            with flood(port, half):
                assert (await asked(process, "livez")).status == 200
                assert (await asked(process, "readyz")).status == 200
                if port != address:
                    assert await health(address) == "SERVING"
        assert "Too many open files" not in process.output
    finally:
        process.stop()
