"""What providers of authors do to the worker that opens them, however they behave."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from headstart_service.domain.errors import StartupError
from headstart_service.pipeline.declared_providers import declared_providers
from headstart_service.worker.own_providers import OwnProviders
from tests.support.waiting import wait_until

CLOSED: list[str] = []
CRASH = asyncio.Event()


@asynccontextmanager
async def good() -> AsyncIterator[object]:
    yield object()
    CLOSED.append("good")


@asynccontextmanager
async def crashing() -> AsyncIterator[object]:
    """Has a task group, as many clients have."""

    async def crash() -> None:
        await CRASH.wait()
        raise ConnectionError("gone")

    async with asyncio.TaskGroup() as group:
        group.create_task(crash())
        yield object()


@asynccontextmanager
async def leaving() -> AsyncIterator[object]:
    sys.exit(3)
    yield


@asynccontextmanager
async def cancelled() -> AsyncIterator[object]:
    raise asyncio.CancelledError
    yield


class Wrong:
    identity = "with a space"


class Cold:
    async def warm(self) -> None:
        raise TimeoutError("too cold")


class Sick:
    def __init__(self) -> None:
        self.tells: Any = None

    def health(self) -> Any:
        if isinstance(self.tells, Exception):
            raise self.tells
        return self.tells


@asynccontextmanager
async def wrong() -> AsyncIterator[object]:
    yield Wrong()


@asynccontextmanager
async def cold() -> AsyncIterator[object]:
    yield Cold()


@asynccontextmanager
async def sick() -> AsyncIterator[object]:
    yield Sick()


@asynccontextmanager
async def failing_to_close() -> AsyncIterator[object]:
    yield object()
    raise ConnectionError("gone")


def plain() -> int:
    return 1


def own(*names: str) -> OwnProviders:
    declared = declared_providers([f"{__name__}:{name}" for name in names])
    return OwnProviders(declared.values(), open_limit=5.0, close_limit=5.0, check_every=0.01)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("leaving", "cannot open: SystemExit: 3"),
        ("cancelled", "cannot open: CancelledError"),
        ("cold", "cannot open: TimeoutError: too cold"),
        ("wrong", "the provider Wrong: its `identity` is 'with a space'"),
        ("plain", "cannot open: TypeError: returned a int: a provider is an async context"),
    ],
)
async def test_one_that_does_not_open_is_named_and_those_before_it_are_closed(
    name: str, reason: str
) -> None:
    CLOSED.clear()
    with pytest.raises(StartupError) as caught:
        async with own("good" if name > "good" else "failing_to_close", name):
            pass
    assert f"provider {name} " in str(caught.value)
    assert reason in str(caught.value)
    assert (["good"] if name > "good" else []) == CLOSED


async def test_one_that_ends_by_itself_is_unhealthy_and_the_others_go_on() -> None:
    CRASH.clear()
    CLOSED.clear()
    async with own("good", "crashing") as it:
        assert it.problem == ""
        CRASH.set()
        await wait_until(lambda: it.problem)
        assert it.problem == "not healthy: provider crashing, see the log"
        assert it.unhealthy == {"crashing": "it ended by itself: ConnectionError: gone"}
    assert CLOSED == ["good"]


async def test_one_that_fails_to_close_is_logged_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with own("failing_to_close"):
        pass
    assert "provider failing_to_close failed to close: ConnectionError: gone" in caplog.text


@pytest.mark.parametrize(
    ("tells", "problem"),
    [
        (None, ""),
        (True, ""),
        ("", ""),
        (False, "it says so"),
        ("no stock", "no stock"),
        (ConnectionError("gone"), "ConnectionError: gone"),
    ],
)
async def test_health_is_what_is_wrong_or_nothing(tells: Any, problem: str) -> None:
    async with own("sick") as it:
        it.values["sick"].tells = tells
        await it.check()
        assert it.unhealthy == ({"sick": problem} if problem else {})
