"""How commands show items, soft needs and what was missing."""

from __future__ import annotations

import argparse
import io

import pytest

from headstart._for_service import results_from
from headstart.v1 import precompute_pb2 as pb
from headstart_service.commands import pipelines
from headstart_service.commands.operator.describing import described
from headstart_service.commands.operator.live_bars import LiveView
from tests.support.item_pipelines import REFERENCES


def running() -> pb.GetResultsResponse:
    message = pb.GetResultsResponse(
        key="cart", pipeline="carriers", revision=1, status=pb.PRECOMPUTE_STATUS_IN_PROGRESS
    )
    rates = message.steps["rates"]
    rates.state = pb.STEP_STATE_RUNNING
    rates.items.total, rates.items.completed, rates.items.failed = 8, 4, 1
    message.steps["other"].state = pb.STEP_STATE_PENDING
    message.items.add(step="rates", index=0, json='{"price": 1}')
    failed = message.items.add(step="rates", index=3, error="away\x1b[2J")
    failed.failure_reason = pb.FAILURE_REASON_STEP_FAILED
    return message


def test_get_shows_how_far_a_step_is_and_what_there_is_of_it() -> None:
    lines = described(results_from(running())).splitlines()
    assert lines[1].split() == ["STEP", "STATE", "ITEMS", "TIME", "ATTEMPTS", "ERROR"]
    assert lines[3].split() == ["rates", "running", "5", "of", "8", "items,", "1", "failed"]
    assert lines[-1] == 'rates: [0] {"price": 1}, [3] away\\x1b[2J'


def test_a_run_without_items_has_no_column_for_them() -> None:
    message = running()
    message.steps["rates"].ClearField("items")
    message.ClearField("items")
    assert "ITEMS" not in described(results_from(message))


def test_a_live_bar_is_as_full_as_the_list_is_done() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    LiveView(stream).update(results_from(running()))
    stream.seek(0)
    [line] = [line for line in stream.read().splitlines() if "rates" in line]
    assert "█" * 10 + "░" * 6 in line
    assert line.endswith("5 of 8 items, 1 failed")


def test_check_marks_items_and_soft_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_PIPELINES", "")
    commands = argparse.ArgumentParser().add_subparsers()
    commands.add_parser("pipelines").add_argument("--json", action="store_true")
    pipelines.add(commands)
    options = commands.choices["pipelines"].parse_args(["check", REFERENCES.split(",")[0]])
    options.json = False
    assert options.run(options) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1][:3] == ["carriers", "rates", "directory,"]
    assert rows[1][3] == "carriers[]"
    assert rows[2][:3] == ["carriers", "cheapest", "rates?"]
