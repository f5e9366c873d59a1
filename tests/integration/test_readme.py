"""What the documents say to run, run as they say it."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.processes import ROOT, Process, clean_environment, serving

README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


async def run(*command: str, **environment: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=ROOT,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


FACTORS = {"HEADSTART_PIPELINES": "examples.factors:FACTORS", "HEADSTART_BRIDGING": "false"}
"""What `make run` serves beside the word game."""
SMALLER = "1000036000099"
"""A number in place of the page's, which take seconds: 1000003 times 1000033."""


def quick(line: str) -> str:
    """Return the command without the seconds that a user is busy and that a number takes."""
    return re.sub(r"\b\d{16}\b", SMALLER, line.removeprefix("sleep 8; "))


def part(heading: str) -> str:
    return README.partition(f"## {heading}\n")[2].partition("\n## ")[0]


async def typed(line: str, **environment: str) -> str:
    """Run a command of the page, as in an activated environment."""
    name, *arguments = shlex.split(line, comments=True)
    beside = Path(sys.executable).with_name(name)
    command = str(beside) if beside.exists() else name
    return await run(command, *arguments, **environment)


@pytest.mark.parametrize(
    ("heading", "file"), [("A pipeline", "factors"), ("An application", "factors_app")]
)
def test_the_code_of_the_page_is_the_example(heading: str, file: str):
    path = f"examples/{file}.py"
    assert f"({path})" in part(heading)
    [code] = blocks(part(heading), "python")
    assert (ROOT / path).read_text().endswith(code)


def test_make_run_serves_the_pipeline():
    assert FACTORS["HEADSTART_PIPELINES"] in (ROOT / "Makefile").read_text()


async def test_the_pipeline_is_started_and_read(tmp_path: Path):
    activation, *lines = "".join(blocks(part("A pipeline"), "sh")).splitlines()
    assert activation == ". .venv/bin/activate"
    curls = "".join(blocks(part("Call it from anywhere"), "sh")).splitlines()
    data = str(tmp_path / "data")
    async with serving(HEADSTART_DATA_DIR=data, **FACTORS) as (process, address):
        printed = [await typed(quick(line), HEADSTART_ADDRESS=address) for line in lines]
        http = f"127.0.0.1:{(await process.says(r'HTTP on [^ ]+:([0-9]+)'))[1]}"
        here = [quick(line).replace("localhost:8080", http) for line in curls]
        here[-1] += f" --http {http}"
        called = [await typed(line, HEADSTART_ADDRESS=address) for line in here]
    assert printed[0].startswith("started: revision 1")
    assert "factors: [1000003, 1000033]" in printed[1]
    assert "of user waiting" in printed[2]
    assert json.loads(called[0])["outcome"] == "START_OUTCOME_STARTED"
    shown = json.loads(called[1])["custom"]["artifacts"]["factors"]["json"]
    assert json.loads(shown) == [1000003, 1000033]
    assert called[2].strip()


@pytest.mark.parametrize("served", [True, False])
async def test_the_application_answers_with_and_without_the_service(
    tmp_path: Path, *, served: bool
):
    serve, *curls = "".join(blocks(part("An application"), "sh")).splitlines()
    command = shlex.split(serve.replace("--port 8000", "--port 0"), comments=True)
    async with AsyncExitStack() as stack:
        address = "127.0.0.1:1"
        if served:
            server = serving(HEADSTART_DATA_DIR=str(tmp_path / "data"), **FACTORS)
            _, address = await stack.enter_async_context(server)
        environment = clean_environment() | {"HEADSTART_ADDRESS": address}
        application = Process([sys.executable, "-m", *command], environment)
        stack.callback(application.stop)
        found = await application.says(r"running on http://127\.0\.0\.1:(\d+)")
        here = [quick(line).replace("localhost:8000", f"127.0.0.1:{found[1]}") for line in curls]
        chosen, shown = [json.loads(await typed(f"{line} -sS")) for line in here]
    assert chosen is None
    assert shown["factors"] == [1000003, 1000033]
    assert shown["source"] in (("ready", "waited", "live") if served else ("live",))


def test_the_pages_call_the_commands_in_one_way_and_name_no_package_that_no_index_has():
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")):
        text = page.read_text()
        assert not re.findall(r"\.venv/bin/(?!activate)\S+", text), page
        assert not re.findall(r"pip install '?headstart\b.*", text), page
        # An example needs `headstart`, which pip must find in the clone, beside it.
        assert not re.findall(r"pip install \./examples/.*", text), page


def test_every_decision_is_in_the_index():
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    for page in folder.glob("0*.md"):
        assert f"({page.name})" in index
