"""The Python of docs/clients.md, written and run as the page says."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys

import pytest

from tests.integration.conftest import GameServer
from tests.support.processes import ROOT, clean_environment

PAGE = (ROOT / "docs" / "clients.md").read_text()
FILES = dict(re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL))


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


def test_every_example_of_the_page_is_a_file_that_is_run():
    assert PAGE.count("```python\n") == len(FILES) == 1


async def test_curl_calls_with_json(game_server: GameServer):
    [block] = [text for text in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "curl" in text]
    port = (await game_server.process.says(r"HTTP on \S+:(\d+)"))[1]
    answers = []
    for line in block.replace("localhost:8080", f"localhost:{port}").splitlines():
        command = [*shlex.split(line), "--silent"]
        answers.append(json.loads(await output_of(command, clean_environment())))
    started, got, read = answers
    assert started["outcome"] in ("START_OUTCOME_STARTED", "START_OUTCOME_REUSED")
    assert got["status"] == read["status"] == "PRECOMPUTE_STATUS_COMPLETED"
