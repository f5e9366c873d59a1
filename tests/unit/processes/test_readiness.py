"""Readiness: an API process prepares the queue now and then, a worker names what it lacks."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

import pytest

from headstart_service.domain.errors import CapacityExhausted, StartupError, StoreUnavailable
from headstart_service.http.readiness import Readiness
from headstart_service.http.server import http_server
from headstart_service.processes.api import ApiReadiness
from tests.support.waiting import wait_until


class _Store:
    """Counts what it is asked, and can be away."""

    def __init__(self) -> None:
        self.prepared = self.pings = 0
        self.away = self.full = False

    async def prepare(self) -> None:
        self._answer()
        self.prepared += 1

    async def ping(self) -> None:
        self._answer()
        self.pings += 1
        if self.full:
            raise CapacityExhausted("full", 5.0)

    def _answer(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


class _Health:
    async def set_serving(self, *, serving: bool) -> None:
        pass


@pytest.fixture
async def watched(capsys: pytest.CaptureFixture[str]) -> Any:
    store = _Store()
    readiness = ApiReadiness(
        store,  # type: ignore[arg-type]
        _Health(),  # type: ignore[arg-type]
        None,
        quiet=True,
        check_every=0.001,
        prepare_every=10,
    )
    task = asyncio.create_task(readiness.watch("localhost:1", "-plaintext"))
    yield store, readiness
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_groups_are_made_before_it_serves_and_looked_after_later(watched: Any):
    store, readiness = watched
    await wait_until(lambda: readiness.serving)
    assert store.prepared >= 1
    await wait_until(lambda: store.pings > 20)
    assert 2 <= store.prepared <= 1 + store.pings / 10 + 1


async def test_they_are_made_again_before_it_serves_again(watched: Any):
    store, readiness = watched
    await wait_until(lambda: readiness.serving)
    store.away = True
    await wait_until(lambda: not readiness.serving)
    before = store.prepared
    store.away = False
    await wait_until(lambda: readiness.serving)
    assert store.prepared > before


async def test_a_worker_is_not_ready_while_it_lacks_something_and_names_it() -> None:
    lacking = ""

    def ask(port: int) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    async with http_server("127.0.0.1", 0, lambda: Readiness.without(lacking)) as port:
        assert await asyncio.to_thread(ask, port) == (200, "ready\n")
        lacking = "cannot run article now"
        assert await asyncio.to_thread(ask, port) == (503, "not ready: cannot run article now\n")


async def test_a_full_store_is_told_though_the_process_serves(watched: Any) -> None:
    store, readiness = watched
    await wait_until(lambda: readiness.serving)
    assert readiness.state.line == "ready"
    store.full = True
    await wait_until(lambda: readiness.reason)
    assert (readiness.state.ready, readiness.state.line) == (
        True,
        "ready, but starts are refused: full",
    )
    store.full, store.away = False, True
    await wait_until(lambda: not readiness.serving)
    assert readiness.state.line == "not ready: away"
    store.away = False
    await wait_until(lambda: readiness.state == Readiness(ready=True))


@pytest.mark.parametrize(
    ("problems", "given", "ready", "line"),
    [
        ((), True, True, "ready"),
        (("", ""), True, True, "ready"),
        (("", "second", "third"), True, False, "not ready: second"),
        (("",), False, False, "not ready"),
        (("first",), False, False, "not ready: first"),
    ],
)
def test_the_first_problem_is_the_reason(
    problems: tuple[str, ...], *, given: bool, ready: bool, line: str
) -> None:
    found = Readiness.without(*problems, ready=given)
    assert (found.ready, found.line) == (ready, line)
    assert Readiness(ready=True, reason="full").line == "ready, but full"


async def test_a_process_that_is_ready_may_have_something_to_report() -> None:
    def ask(port: int, path: str) -> tuple[int, str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()

    state = Readiness(ready=True, reason="full")
    async with http_server("127.0.0.1", 0, lambda: state) as port:
        assert await asyncio.to_thread(ask, port, "/readyz") == (200, "ready, but full\n")
        state = Readiness(ready=False)
        assert await asyncio.to_thread(ask, port, "/livez") == (200, "ok\n")
        with pytest.raises(
            StartupError,
            match=r"HEADSTART_HTTP_PORT: cannot listen on .*: another process has it; stop",
        ):
            async with http_server("127.0.0.1", port, lambda: state):
                raise AssertionError("two have one port")
        async with http_server("127.0.0.1", port, lambda: state, or_any_port=True) as other:
            assert other != port
    for host in ("no such host", "x" * 100, "a\0b"):
        with pytest.raises(StartupError, match="HEADSTART_H"):
            async with http_server(host, 0, lambda: state):
                raise AssertionError("it listens nowhere")
