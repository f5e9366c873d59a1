"""What the documents say to run, run as they say it."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.config.settings import describe, variable
from tests.integration.conftest import GameServer
from tests.support.processes import ROOT, api, clean_environment, stub, worker
from tests.support.requests import results
from tests.support.valkey import Valkey

README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


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


@pytest.mark.parametrize("number", [0, 1])
async def test_the_python_examples_run(game_server: GameServer, number: int):
    code = blocks(README, "python")[number]
    output = await run(sys.executable, "-c", code, HEADSTART_ADDRESS=game_server.address)
    assert ["lexical_bridge", "a good bridge:"][number] in output


async def test_the_commands_run_in_their_order(game_server: GameServer):
    anywhere = README.partition("## Use it from anywhere")[2].partition("\n## ")[0]
    activation, *commands = "".join(blocks(anywhere, "sh")).splitlines()
    assert activation == ". .venv/bin/activate"
    assert len(commands) == 11
    for line in commands:
        name, *arguments = shlex.split(line.replace("localhost:50051", game_server.address))
        # What the activation finds.
        command = str(Path(sys.executable).with_name(name))
        output = await run(command, *arguments, HEADSTART_ADDRESS=game_server.address)
        assert output.strip()


def test_the_pages_call_the_commands_in_one_way_and_name_no_package_that_no_index_has():
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")):
        text = page.read_text()
        assert not re.findall(r"\.venv/bin/(?!activate)\S+", text), page
        assert not re.findall(r"pip install '?headstart\b.*", text), page


def test_every_setting_is_in_the_readme():
    for name, _, _ in describe():
        assert f"`{variable(name)}`" in README, name


async def test_the_pipeline_of_the_architecture_page_runs(valkey: Valkey, tmp_path: Path):
    (code,) = blocks(ARCHITECTURE, "python")
    (tmp_path / "my_package.py").write_text(code)
    settings = {
        "PYTHONPATH": str(tmp_path),
        "HEADSTART_PIPELINES": "my_package:TEXT",
        "HEADSTART_BRIDGING": "false",
    }
    async with api(valkey.url, **settings) as (_, address), worker(valkey.url, **settings):
        async with stub(address) as service:
            request = pb.StartPrecomputeRequest(key="k", custom=pb.CustomSpec(pipeline="text"))
            request.custom.inputs.update({"text": "the longest word wins"})
            await service.StartPrecompute(request)
            answer = await service.GetResults(results("k", 20))
    assert answer.custom.artifacts["longest"].json.string_value == "longest"


def test_every_decision_is_in_the_index():
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    for page in folder.glob("0*.md"):
        assert f"({page.name})" in index
