"""The Python of docs/clients.md, written and run as the page says."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import GameServer
from tests.support.processes import ROOT, Process, clean_environment

PAGE = (ROOT / "docs" / "clients.md").read_text()
FILES = dict(re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
CURLS = re.findall(r"^curl .*", PAGE, re.MULTILINE)


async def output_of(command: list[str], environment: dict[str, str]) -> str:
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def environment(game_server: GameServer) -> dict[str, str]:
    """One beside a `make run`."""
    return clean_environment() | {"HEADSTART_ADDRESS": game_server.address}


async def test_values_are_taken_or_computed_and_their_sources_told(environment: dict[str, str]):
    printed = await output_of([sys.executable, "-c", FILES["longest.py"]], environment)
    value, source, reason = printed.splitlines()
    assert value == "longest"
    assert source in ("ready", "waited", "live")
    assert (reason == "None") is (source == "ready") or reason


@pytest.mark.parametrize("served", [True, False])
async def test_the_web_application_answers_with_and_without_the_service(
    environment: dict[str, str], tmp_path: Path, *, served: bool
):
    (tmp_path / "app.py").write_text(FILES["app.py"])
    if not served:
        environment["HEADSTART_ADDRESS"] = "127.0.0.1:1"
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"]
    application = Process(command, environment, tmp_path)
    try:
        found = await application.says(r"running on http://127\.0\.0\.1:(\d+)")
        answers = []
        for curl in CURLS:
            line = curl.replace("localhost:8000", f"127.0.0.1:{found[1]}")
            line = line.replace("revision=1", "revision=1" if served else "revision=0")
            answers.append(json.loads(await output_of(shlex.split(f"{line} -sS"), environment)))
    finally:
        application.stop()
    # A start that takes longer than its budget, as on a busy machine, gives 0 too.
    assert answers[0] in ([{"revision": 1}, {"revision": 0}] if served else [{"revision": 0}])
    assert answers[1]["longest"] == "longest"
    sources = ("ready", "waited", "live") if served else ("live",)
    assert answers[1]["source"] in sources


def test_every_example_of_the_page_is_a_file_that_is_run():
    assert PAGE.count("```python\n") == len(FILES) == 2
    assert len(CURLS) == 2
