"""`headstart watch` of steps that stream and report progress: in a log, and on a terminal."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from typing import Any

from headstart import PrecomputeClient, StepProgress, StepReport, StepState
from headstart.testing import completed_results, fake_server
from headstart_service.commands.operator.growing_text import GrowingText
from headstart_service.commands.operator.live_bars import LiveView
from tests.support.commands import run


def results_with(partials: dict[str, Any], state: str = "running", **report: Any) -> Any:
    step = StepReport(
        state=StepState(state), error=None, elapsed=timedelta(seconds=1), attempts=0, **report
    )
    results = completed_results("page-1")
    return replace(results, steps=dict.fromkeys(partials, step), partials=partials)


async def start(address: str) -> None:
    async with PrecomputeClient(address) as client:
        await client.start("page-1", "page", {})


def test_a_log_has_each_line_of_text_once_it_is_whole() -> None:
    streams = {"draft": ["Bread wants\nfl", "our\nand ", "time"], "offers": [{"price": 1}, 2]}
    with fake_server(streams=streams, delays={"draft": 0.6}) as server:
        asyncio.run(start(server.address))
        done = run("watch", "page-1", "--address", server.address)
    lines = [line for line in done.out.splitlines() if "> " in line]
    assert [line for line in lines if "draft> " in line] == [
        "page-1 draft> Bread wants",
        "page-1 draft> flour",
        "page-1 draft> and time",
    ]
    assert [line for line in lines if "offers> " in line] == [
        'page-1 offers> {"price": 1}',
        "page-1 offers> 2",
    ]


def test_a_reader_gets_what_there_is() -> None:
    with fake_server(streams={"draft": ["Bread wants"]}, delays={"draft": 3600}) as server:
        asyncio.run(start(server.address))
        done = run("get", "page-1", "--address", server.address)
    assert 'draft, so far: "Bread wants"' in done.out


def test_a_log_says_that_a_text_begins_anew() -> None:
    growing = GrowingText()
    assert list(growing.lines(results_with({"draft": "one\ntwo"}))) == ["draft> one"]
    assert list(growing.lines(results_with({"draft": "uno\n"}))) == [
        "draft> (begins anew)",
        "draft> uno",
    ]


def test_a_picture_has_the_line_that_grows_and_the_progress() -> None:
    stream = StringIO()
    view = LiveView(stream)
    view.update(
        results_with(
            {"draft": "before\nand now"}, progress=StepProgress(fraction=0.5, message="kneading")
        )
    )
    picture = stream.getvalue().splitlines()
    assert picture[-1] == "    and now"
    assert "########........" in picture[-2]
    assert "50% kneading" in picture[-2]
