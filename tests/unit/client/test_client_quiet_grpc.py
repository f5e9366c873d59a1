"""What gRPC writes on standard error while a server's TLS is wrong, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import clean_environment

SCRIPT = """
import os, socket, threading
{first}
from headstart import BlockingClient, ServiceUnavailable, Tls

assert os.environ.get("GRPC_VERBOSITY") == {level!r}, "the environment is as it was"
server = socket.create_server(("127.0.0.1", 0))

def answer():
    while True:
        peer, _ = server.accept()
        peer.sendall(b"HTTP/1.1 400 Bad Request\\r\\n\\r\\n")
        peer.close()

threading.Thread(target=answer, daemon=True).start()
with BlockingClient("127.0.0.1:%d" % server.getsockname()[1], tls=Tls()) as client:
    for _ in range({calls}):
        try:
            client.get_stats(timeout=20)
        except ServiceUnavailable as error:
            print(error)
"""


def ran(first: str = "", calls: int = 1, **environment: str) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(first=first, calls=calls, level=environment.get("GRPC_VERBOSITY"))
    own = {key: value for key, value in clean_environment().items() if key != "GRPC_VERBOSITY"}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=own | environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_broken_handshakes_write_nothing_and_each_error_has_the_reason() -> None:
    done = ran(calls=6)
    assert done.stderr == ""
    assert "WRONG_VERSION_NUMBER" in done.stdout


@pytest.mark.parametrize(
    ("first", "level"), [("", "INFO"), ("import grpc", "INFO"), ("import grpc", "")]
)
def test_the_applications_choice_stands(first: str, level: str) -> None:
    done = ran(first, **({"GRPC_VERBOSITY": level} if level else {}))
    assert "Handshake failed" in done.stderr


def test_the_applications_own_log_stays() -> None:
    done = ran("import logging; logging.basicConfig(level=10); logging.info('of the application')")
    assert "of the application" in done.stderr
    assert "Handshake failed" not in done.stderr
