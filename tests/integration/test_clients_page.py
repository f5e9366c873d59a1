"""The Python of docs/clients.md, written and run as the page says."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shlex
import subprocess
import sys
from textwrap import indent
from typing import Any

import pytest

from headstart import HeadstartError, PrecomputeClient, Start
from tests.integration.conftest import GameServer
from tests.languages.tools import node
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


async def test_many_items_are_started_and_read_as_the_page_does(game_server: GameServer):
    [lines] = [text for text in re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL) if "Start(" in text]
    known: dict[str, Any] = {
        "Start": Start,
        "HeadstartError": HeadstartError,
        "log": logging.getLogger(__name__),
    }
    exec(f"async def page(client, items):\n{indent(lines, '    ')}    return found", known)
    items = [f"longest {number}" for number in range(40)]
    async with PrecomputeClient(game_server.address) as client:
        found = await known["page"](client, items)
    assert list(found) == items
    ready = [run.custom for run in found.values() if run.custom]
    assert len(ready) >= 30
    assert all(values == {"longest": "longest"} for values in ready)


async def http_port(game_server: GameServer) -> str:
    return (await game_server.process.says(r"HTTP on \S+:(\d+)"))[1]


async def test_curl_calls_with_json(game_server: GameServer):
    blocks = [text for text in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "curl" in text]
    port = await http_port(game_server)
    block, watch = (text.replace("localhost:8080", f"localhost:{port}") for text in blocks)
    answers = []
    for line in block.splitlines():
        command = [*shlex.split(line), "--silent"]
        answers.append(json.loads(await output_of(command, clean_environment())))
    started, got, read = answers
    assert started["outcome"] in ("START_OUTCOME_STARTED", "START_OUTCOME_REUSED")
    assert got["status"] == read["status"] == "PRECOMPUTE_STATUS_COMPLETED"
    watched = await output_of(["sh", "-c", watch], clean_environment())
    assert '"longest":{"json":"\\"longest\\""}' in watched
    assert watched.endswith("{}")


@pytest.mark.languages
async def test_a_script_of_a_page_reads_a_run(game_server: GameServer):
    [script] = re.findall(r"```js\n(.*?)```", PAGE, re.DOTALL)
    async with PrecomputeClient(game_server.address) as client:
        await client.start("text-1", "text", {"text": "the longest word wins"})
    url = f"http://localhost:{await http_port(game_server)}"
    lines = f"const [url, token] = ['{url}', 'none'];\n{script}\nconsole.log(longest);"
    command = [node(), "--input-type=module", "--eval", lines]
    assert await output_of(command, clean_environment()) == '"longest"\n'
