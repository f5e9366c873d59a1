"""What log lines look like to people and to machines, whatever stands in a key."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest

from headstart_service.domain import Claim, Job, Lease, RunKey
from headstart_service.domain.log_fields import fields, inside
from headstart_service.telemetry.logging.formatter import set_up_logging, wants_json
from headstart_service.telemetry.logging.work_log import WorkLog
from headstart_service.worker.worker_observer import (
    UNWANTED,
    RunEnd,
    RunOutcome,
    StepEnd,
    StepOutcome,
)

HOSTILE = 'g"\n{"level":"error","message":"forged"}\r\x1b[31m\u2028\udcff'
KEY = RunKey("games", "game-1")
CLAIM = Claim(Lease(Job(0, "5-0", KEY, "5-0"), 2), 3, "bridging", b'{"anchor":"ocean"}', {}, 0)
LOG = logging.getLogger("headstart_service.test")


@contextmanager
def written(
    log_format: str, monkeypatch: pytest.MonkeyPatch, *, terminal: bool = False
) -> Iterator[StringIO]:
    """What standard error gets while the root logger is set up for this format."""
    stream = StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stream)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        set_up_logging("debug", log_format)
        yield stream
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def told(stream: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_its_time_level_logger_message_and_fields(monkeypatch) -> None:
    with written("json", monkeypatch) as stream:
        LOG.info("%s claimed", KEY, extra=fields("run.claimed", KEY, revision=3))
    [line] = told(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "info",
        "logger": "headstart_service.test",
        "message": "games/game-1 claimed",
        "event": "run.claimed",
        "namespace": "games",
        "key": "game-1",
        "revision": 3,
    }


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_what_a_caller_chose_forges_no_line(log_format: str, monkeypatch) -> None:
    with written(log_format, monkeypatch) as stream:
        key = RunKey("games", HOSTILE)
        LOG.warning("%s refused", key, extra=fields("x", key, inputs=HOSTILE))
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            LOG.exception("%s", HOSTILE)
    text = stream.getvalue()
    text.encode()
    assert "\x1b" not in text
    if log_format == "json":
        first, second = told(stream)
        assert (first["level"], first["key"]) == ("warning", HOSTILE[:-1] + "\\udcff")
        assert "forged" in second["exception"]
    else:
        own = [line for line in text.splitlines() if not line.startswith("    ")]
        assert len(own) == 2
        assert all(re.match(r"\d{4}-", line) for line in own)


def test_a_line_is_bounded_however_much_a_caller_sends(monkeypatch) -> None:
    with written("json", monkeypatch) as stream:
        LOG.info("%s", "m" * 10**6, extra=fields("x", inputs="i" * 10**6))
        try:
            raise ValueError("e" * 10**6)
        except ValueError:
            LOG.exception("failed")
    assert all(len(line) < 25_000 for line in stream.getvalue().splitlines())
    assert told(stream)[0]["inputs"].endswith("…")


async def test_lines_have_the_fields_of_the_task_that_writes_them(monkeypatch) -> None:
    async def write(step: str) -> None:
        with inside({"step": step}):
            await asyncio.sleep(0)
            logging.getLogger("somebody.else").warning("from %s", step)

    with written("json", monkeypatch) as stream:
        with inside({"key": "k"}):
            await asyncio.gather(write("one"), write("two"))
        LOG.warning("outside")
    lines = told(stream)
    assert {(line.get("key"), line.get("step"), line["message"]) for line in lines} == {
        ("k", "one", "from one"),
        ("k", "two", "from two"),
        (None, None, "outside"),
    }


def test_a_line_that_somebody_fills_in_wrongly_is_still_json(monkeypatch) -> None:
    with written("json", monkeypatch) as stream:
        LOG.info("x", extra=fields("x", odd=object()))
    assert "object" in told(stream)[0]["odd"]


@pytest.mark.parametrize(
    ("log_format", "pod", "terminal", "expected"),
    [
        ("auto", True, False, True),
        ("auto", True, True, False),
        ("auto", False, False, False),
        ("text", True, False, False),
        ("json", False, True, True),
    ],
)
def test_lines_are_json_in_a_pod_and_text_where_a_person_looks_on(
    log_format: str, *, pod: bool, terminal: bool, expected: bool, monkeypatch
) -> None:
    if pod:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    else:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with written(log_format, monkeypatch, terminal=terminal) as stream:
        assert wants_json(log_format) is expected
        LOG.info("hello")
    assert stream.getvalue().startswith("{") is expected


@pytest.mark.parametrize(("terminal", "coloured"), [(True, True), (False, False)])
def test_only_a_terminal_gets_colours(*, terminal: bool, coloured: bool, monkeypatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    with written("text", monkeypatch, terminal=terminal) as stream:
        LOG.warning("look")
    assert ("\x1b[" in stream.getvalue()) is coloured


def _work(log: WorkLog, state: str, error: str = "", steps: tuple[tuple[str, str], ...] = ()):
    outcome = RunOutcome()
    with log.run(CLAIM, outcome):
        for name, failed in steps:
            step = StepOutcome()
            with log.step(CLAIM, name, step):
                step.state, step.error = StepEnd.FAILED if failed else StepEnd.COMPLETED, failed
        outcome.state, outcome.error = RunEnd(state), error


def test_a_run_is_two_lines_and_each_step_one(monkeypatch) -> None:
    with written("json", monkeypatch) as stream:
        _work(WorkLog("w1"), "completed", steps=(("good", ""), ("bad", "internal error 12")))
    lines = told(stream)
    assert [(line["event"], line["level"]) for line in lines] == [
        ("run.claimed", "info"),
        ("step.completed", "debug"),
        ("step.failed", "warning"),
        ("run.completed", "info"),
    ]
    about = {"namespace": "games", "key": "game-1", "run": "5-0", "revision": 3, "attempt": 2}
    about |= {"worker": "w1", "pipeline": "bridging"}
    for line in lines:
        assert about.items() <= line.items()
        assert "ocean" not in json.dumps(line)
    assert lines[2]["step"] == "bad"
    assert lines[2]["error"] == "internal error 12"
    assert lines[3]["duration_ms"] >= 0


@pytest.mark.parametrize(
    ("state", "error", "level"),
    [
        ("failed", "first: internal error 12", "warning"),
        ("handed_on", "", "info"),
        ("stopped", UNWANTED, "info"),
        ("stopped", "its lease was lost", "warning"),
    ],
)
def test_an_end_that_is_trouble_is_a_warning_with_its_reason(
    state: str, error: str, level: str, monkeypatch
) -> None:
    with written("json", monkeypatch) as stream:
        _work(WorkLog("w1"), state, error)
    end = told(stream)[-1]
    assert (end["event"], end["level"], end.get("error", "")) == (f"run.{state}", level, error)
    assert error in end["message"]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_inputs_are_shown_only_when_asked_for(log_format: str, monkeypatch) -> None:
    for wanted in (False, True):
        with written(log_format, monkeypatch) as stream:
            _work(WorkLog("w1", inputs=wanted), "completed")
        assert ("ocean" in stream.getvalue()) is wanted
