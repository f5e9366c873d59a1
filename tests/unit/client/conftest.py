"""Addresses where a fake service answers, or nobody does."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.scripted_service import ScriptedService


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    fake = ScriptedService()
    fake.start()
    yield fake
    fake.shut_down()


@pytest.fixture
def refused() -> Iterator[str]:
    """An address that refuses connections: bound, so nobody else takes it, but not listening."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address that accepts connections and then never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def stopwatch() -> Callable[[], float]:
    """Seconds since the fixture was called last, or made."""
    last = time.monotonic()

    def lap() -> float:
        nonlocal last
        previous, last = last, time.monotonic()
        return last - previous

    return lap
