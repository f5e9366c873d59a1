"""docs/pipelines.md from its empty folder to its end: files written, commands run, output compared."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headstart_service.pipeline.providers import BUILT_IN
from headstart_service.pipeline.step import step
from headstart_service.sdk import LanguageModel, SpokenText
from tests.support.processes import ROOT, Process, address_of, clean_environment
from tests.support.waiting import wait_until

PAGE = (ROOT / "docs" / "pipelines.md").read_text()
LEFT_OUT = "…"
FILES = ("python", "toml", "dockerfile")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    file: str
    """What the paragraph above says that it is; empty for what is no file."""
    line: int


def blocks() -> list[Block]:
    found = []
    for match in re.finditer(r"```(\w+)\n(.*?)```\n", PAGE, re.DOTALL):
        before = PAGE[: match.start()].rstrip().rpartition("\n\n")[2]
        names = re.findall(r"`([\w.]+\.\w+|Dockerfile)`", before)
        file = names[-1] if match[1] in FILES else ""
        found.append(Block(match[1], match[2], file, PAGE[: match.start()].count("\n") + 1))
    return found


def matches(printed: str, said: str) -> bool:
    """Whether `said` is what the page says: a line of … is any lines, … in a line any text."""
    pattern = ""
    for line in said.strip().splitlines():
        if line.strip() == LEFT_OUT:
            pattern += r"(?:.*\n)*?"
        else:
            pattern += r"[^\n]*".join(map(re.escape, line.rstrip().split(LEFT_OUT))) + r"\n"
    lines = [re.sub(r"\s+$", "", line) for line in printed.strip().splitlines()]
    return re.fullmatch(pattern, "\n".join(lines) + "\n") is not None


@dataclass
class Reader:
    """Somebody who does what the page says, in an empty folder."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def follow_file(self, block: Block) -> None:
        assert block.file, f"line {block.line}: which file?"
        (self.folder / block.file).write_text(block.text)

    def command(self, line: str) -> list[str]:
        # As if it were installed: `headstart` and `python` are this environment's.
        python = sys.executable
        line = re.sub(r"(^|\s)headstart (?=[a-z])", rf"\1{python} -m headstart_service ", line)
        line = re.sub(r"(^|\s)python ", rf"\1{python} ", line)
        line = re.sub(r"(^|\s)pip ", rf"\1{python} -m pip --disable-pip-version-check ", line)
        line = line.replace("PYTHONPATH=", f"PYTHONPATH={self.environment['PYTHONPATH']}:")
        return ["bash", "-c", line]

    async def run(self, block: Block) -> str:
        printed = []
        for line in block.text.strip().splitlines():
            done = await asyncio.to_thread(
                subprocess.run,
                self.command(line),
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=60,
            )
            assert done.returncode == 0, f"line {block.line}: {line}\n{done.stdout}"
            printed.append(done.stdout)
        return "".join(printed)


async def test_a_reader_gets_from_the_empty_folder_to_the_end(tmp_path: Path):
    folder = tmp_path / "pipeline"
    folder.mkdir()
    environment = clean_environment() | {
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": f"{ROOT / 'client'}:{ROOT / 'service'}",
        "PIP_NO_BUILD_ISOLATION": "false",  # pip's way to say: with the hatchling that is here
        "PYTEST_ADDOPTS": "-p no:cacheprovider",
        "HEADSTART_DATA_DIR": str(tmp_path / "data"),
        "HEADSTART_GRPC_PORT": "0",
        "HEADSTART_HTTP_PORT": "0",
    }
    reader = Reader(folder, environment)
    async with AsyncExitStack() as stack:
        printed = ""
        for block in blocks():
            if block.language in FILES:
                reader.follow_file(block)
            elif block.text.startswith("python3 -m venv"):
                continue  # tests/packaging installs these extras, and nothing more
            elif block.text.rstrip().endswith("headstart serve"):
                command = reader.command("exec env " + block.text.strip())
                server = Process(command, environment, folder)
                stack.callback(server.stop)
                environment["HEADSTART_ADDRESS"] = await address_of(server)
            elif " headstart dev " in block.text:
                command = reader.command("exec env " + block.text.strip())
                process = Process(command, environment, folder)
                stack.callback(process.stop)
                await wait_until(lambda process=process: "Ctrl-C ends" in process.output)
                printed = process.output
            elif block.language == "sh":
                printed = await reader.run(block)
            else:
                said = f"line {block.line} says:\n{block.text}\nprinted was:\n{printed}"
                assert matches(printed, block.text), said


def test_every_option_and_provider_is_in_the_reference():
    options = step.__kwdefaults__ or {}
    assert options
    for name in (*options, *BUILT_IN):
        assert f"`{name}`" in PAGE, name


@pytest.mark.parametrize("protocol", [LanguageModel, SpokenText])
def test_the_reference_has_the_signatures_of_what_a_language_model_gives(protocol: type):
    properties = {n: m.fget for n, m in vars(protocol).items() if isinstance(m, property)}
    declared = ("text", "parse", "stream", "warm", "__aiter__")
    methods = {name: vars(protocol)[name] for name in declared if name in vars(protocol)}
    assert properties
    assert methods
    for name, function in (properties | methods).items():
        signature = str(inspect.signature(function)).replace("''", '""').replace("'", "")
        spelt = signature.replace("(self, ", "(").replace("(self)", "()")
        call = name + (spelt.removeprefix("()") if name in properties else spelt)
        assert f"{call}`" in PAGE, call


def test_every_language_of_the_page_is_followed():
    assert {block.language for block in blocks()} == {"sh", "text", *FILES}


def test_what_differs_is_noticed():
    assert matches("a 1 b\nx\ny\nz\n", "a … b\n…\nz\n")
    assert not matches("a 1 c\nz\n", "a … b\nz\n")
    assert not matches("a\nb\n", "a\n")
