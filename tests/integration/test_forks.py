"""Clients in backends that fork: gunicorn, Celery, pools of processes; and under gevent."""

from __future__ import annotations

import asyncio
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headstart.testing import FakeServer, fake_server
from tests.support.forking import CHILDREN
from tests.support.processes import Process, clean_environment
from tests.support.valkey import Valkey

LIMIT = 120.0
"""Seconds after which a process counts as hanging."""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server({"a": "there"}) as server:
        server.script({"a": "there"}, pipeline="slow", delays={"a": 1.5})
        yield server


@asynccontextmanager
async def python(
    *arguments: str, server: FakeServer, meeting: Path, **environment: str
) -> AsyncIterator[Process]:
    """Run Python with a client's environment while the context is open."""
    given = {"HEADSTART_ADDRESS": server.address, "MEETING": str(meeting), **environment}
    process = Process([sys.executable, *arguments], clean_environment() | given)
    try:
        yield process
    finally:
        process.stop()


async def test_each_worker_of_a_preloaded_gunicorn_works(server: FakeServer, tmp_path: Path):
    options = f"--preload --workers {CHILDREN} --bind 127.0.0.1:0 --no-control-socket"
    command = ("-m", "gunicorn", *options.split(), "tests.support.forking.web:app")
    async with python(*command, server=server, meeting=tmp_path) as gunicorn:
        url = (await gunicorn.says(r"Listening at: (http://\S+)"))[1]

        def get() -> str:
            with urllib.request.urlopen(url, timeout=LIMIT) as answer:
                return answer.read().decode()

        running = asyncio.get_running_loop()
        with ThreadPoolExecutor(CHILDREN) as threads:
            answers = await asyncio.gather(
                *(running.run_in_executor(threads, get) for _ in range(CHILDREN))
            )
        assert [each.split()[1] for each in answers] == ["works"] * CHILDREN
        assert len({each.split()[0] for each in answers}) == CHILDREN
        assert "WARNING" not in gunicorn.output
        gunicorn.send(signal.SIGTERM)
        assert await gunicorn.ended(LIMIT) == 0


async def test_each_child_of_a_celery_worker_works(
    server: FakeServer, valkey: Valkey, tmp_path: Path
):
    application = "tests.support.forking.queue"
    settings = {"server": server, "meeting": tmp_path / "meeting", "BROKER": f"{valkey.url}/0"}
    (tmp_path / "meeting").mkdir()
    worker = ("-A", application, "worker", "--concurrency", str(CHILDREN), "--loglevel", "INFO")
    async with python("-m", "celery", *worker, **settings) as celery:
        await celery.says("celery@.* ready")
        async with python("-m", application, **settings) as sender:
            assert await sender.ended(LIMIT) == 0, sender.tail + celery.tail
            answers = [line.split() for line in sender.output.splitlines()]
        assert [what for _, what in answers] == ["works"] * CHILDREN
        assert len({pid for pid, _ in answers}) == CHILDREN
        celery.send(signal.SIGTERM)
        assert await celery.ended(LIMIT) == 0


@pytest.mark.parametrize(
    ("way", "what"),
    [
        ("pool", "works"),
        ("busy", "works"),
        ("loop", "works"),
        ("beside", "works"),
        ("foreign", "refused"),
    ],
)
async def test_children_work_or_refuse_by_name_and_the_parent_lives_on(
    server: FakeServer, tmp_path: Path, way: str, what: str
):
    async with python(
        "-m", "tests.support.forking.script", way, server=server, meeting=tmp_path
    ) as script:
        assert await script.ended(LIMIT) == 0, script.tail
        lines = script.output.splitlines()
    assert lines.count(what) == CHILDREN
    assert "the parent lives on" in lines


async def test_under_gevent_clients_are_refused_by_name_and_nothing_hangs(
    server: FakeServer, tmp_path: Path
):
    async with python(
        "-m", "tests.support.forking.green", server=server, meeting=tmp_path
    ) as script:
        assert await script.ended(LIMIT) == 0, script.tail
        output = script.output
    assert output.count("gevent has replaced this process's threads") >= 2
    assert "--worker-class gthread" in output
    assert "nothing hangs" in output
    assert not server.requests
