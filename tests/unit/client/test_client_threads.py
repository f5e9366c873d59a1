"""get_or_compute of the client for threads."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from headstart import BlockingClient, Incomplete
from tests.support.scripted_service import ScriptedService
from tests.unit.client.messages import values

LONG = 30.0
PATIENT = 20.0
"""A budget that a busy machine keeps."""


def test_plain_functions_run_in_threads_at_the_same_time(service: ScriptedService) -> None:
    meeting = threading.Barrier(2, timeout=30)

    def meet() -> str:
        meeting.wait()
        return threading.current_thread().name

    def after(a: str, b: str) -> list[str]:
        return [a, b]

    with BlockingClient(service.address) as client:
        got = client.get_or_compute(
            "k", LONG, {"a": meet, "b": meet, "after": after}, budget=PATIENT
        )
        assert got.values["after"] == ["headstart fallback"] * 2
        service.on("GetResults", values(a="there"))
        assert client.get_or_compute("k", LONG, {"a": meet}, budget=PATIENT).sources == {
            "a": "ready"
        }
        assert client.get_results("k").revision == 3
        with pytest.raises(ValueError, match="'words'"):
            client.get_or_compute("k", LONG, {"a": lambda words: words})
    with pytest.raises(RuntimeError, match="closed"):
        client.get_or_compute("k", LONG, {"a": meet})


def test_an_error_in_a_thread_is_raised_and_a_deadline_is_kept(service: ScriptedService) -> None:
    go = threading.Event()

    def broken() -> None:
        raise LookupError("no such word")

    def stop() -> None:
        raise StopIteration

    with BlockingClient(service.address) as client:
        with pytest.raises(LookupError, match="no such word"):
            client.get_or_compute("k", LONG, {"a": broken}, budget=PATIENT)
        with pytest.raises(RuntimeError, match="StopIteration"):
            client.get_or_compute("k", LONG, {"a": stop}, budget=PATIENT)
        with pytest.raises(Incomplete) as caught:
            client.get_or_compute("k", 0.3, {"a": lambda: go.wait(30)})
        assert caught.value.missing == ("a",)
        go.set()


def test_many_threads_share_a_client(service: ScriptedService) -> None:
    service.on("GetResults", values(a="there"))
    found: list[Any] = []
    with BlockingClient(service.address) as client:

        def ask() -> None:
            found.extend(
                client.get_or_compute("k", LONG, {"a": lambda: "live"}, budget=PATIENT).values["a"]
                for _ in range(10)
            )

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert found == ["there"] * 80


def test_closing_ends_the_calls_of_other_threads(service: ScriptedService) -> None:
    begun, go = threading.Event(), threading.Event()
    raised: list[BaseException] = []
    client = BlockingClient(service.address)

    def slow() -> bool:
        begun.set()
        return go.wait(30)

    def ask() -> None:
        try:
            client.get_or_compute("k", LONG, {"a": slow}, budget=PATIENT)
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is not to be lost with the thread
            raised.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert begun.wait(30)
    client.close()
    thread.join(30)
    go.set()
    assert not thread.is_alive()
    assert [type(error) for error in raised] == [RuntimeError]
    assert "closed" in str(raised[0])
