"""The demonstrations beside a `make run`, which holds the ports that they would have."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from examples.bridging_web import serve
from examples.bridging_web.beside import Served
from examples.ports import free_port
from tests.support.processes import ROOT, Process, clean_environment


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_the_live_demonstration_takes_a_free_port_where_its_own_is_taken(taken: int):
    command = [sys.executable, "-m", "examples.live", "--http-port", str(taken)]
    # What is shown needs no worker.
    environment = clean_environment() | {"HEADSTART_WORKER": "false", "HEADSTART_DRAIN": "0.1"}
    process = Process(command, environment, ROOT)
    try:
        found = await process.says(r"Watch it on http://\S+:(\d+)")
        assert int(found[1]) != taken
        assert f"Port {taken} is taken, so the live page gets another one.\n" in process.output
    finally:
        process.stop()


async def test_the_game_takes_free_ports_where_its_own_are_taken(
    taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked: dict[str, int] = {}

    class ItIsServed(Exception):
        pass

    @asynccontextmanager
    async def everything(**ports: int) -> AsyncIterator[Any]:
        asked.update(ports)
        yield Served("http://game", "address", "http://page", stand_in=False)
        raise AssertionError

    async def ended(_: object) -> None:
        raise ItIsServed

    monkeypatch.setattr(serve, "everything", everything)
    monkeypatch.setattr("asyncio.Event.wait", ended)
    monkeypatch.setattr(sys, "argv", ["demo-web", "--port", f"{taken}", "--http-port", f"{taken}"])
    with pytest.raises(ItIsServed):
        await serve.main()
    assert asked == {"port": 0, "http_port": 0}
    shown = capsys.readouterr().out
    assert re.findall(r"^Port \d+ is taken, so (.*) gets", shown, re.MULTILINE) == [
        "the game",
        "the live page",
    ]


def test_a_port_that_nobody_has_stays_the_one(taken: int, capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    assert free_port(free, "it") == free
    assert capsys.readouterr().out == ""
