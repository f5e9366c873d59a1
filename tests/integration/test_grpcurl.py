"""docs/grpcurl.md, line by line: run in its order, and compared with what it says is printed."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import GameServer
from tests.support.processes import ROOT, Process, address_of, clean_environment

PAGE = (ROOT / "docs" / "grpcurl.md").read_text()
BIN = Path(sys.executable).parent
LEFT_OUT = "…"
METHODS = re.findall(
    r"^  rpc (\w+)", (ROOT / "protos/headstart/v1/precompute.proto").read_text(), re.MULTILINE
)


@dataclass(frozen=True)
class Recipe:
    """A command of the page, and what the page says that it prints."""

    command: str
    printed: str

    @property
    def fails(self) -> bool:
        return self.printed.startswith(("ERROR:", '{\n  "code"'))


RECIPES = [
    Recipe(command, printed)
    for command, printed in re.findall(
        r"```sh\n(.*?)```\n(?:\n```text\n(.*?)```)?", PAGE, re.DOTALL
    )
]


SERVE = "headstart serve "


@dataclass
class Kitchen:
    """The clone, in which a reader types what the page says."""

    directory: Path
    addresses: dict[str, str]
    """The real address of each that the page names."""
    environment: dict[str, str]
    """What the reader's shell exports."""

    async def run(self, command: str) -> tuple[int, str]:
        """Return the exit code, and what is printed."""
        for named, real in self.addresses.items():
            command = command.replace(named, real)
        kept = self.directory / "exported"
        done = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-c", f"trap 'export -p > {kept}' EXIT; {command}"],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60,
        )
        if found := re.search('TOKEN="(.+)"', kept.read_text()):
            self.environment["TOKEN"] = found[1]
        return done.returncode, done.stdout

    async def serve(self, command: str, stack: AsyncExitStack) -> None:
        """Run a server in another terminal, on a free port in place of the page's."""
        port = re.search(r"--grpc-port (\d+)", command)[1]
        script = f"exec {command.replace(f'--grpc-port {port}', '--grpc-port 0')}"
        server = Process(["bash", "-c", script], self.environment, self.directory)
        stack.callback(server.stop)
        real = (await address_of(server)).rpartition(":")[2]
        self.addresses |= {
            f"{host}:{port}": f"{host}:{real}" for host in ("localhost", "127.0.0.1")
        }


@pytest.fixture
def kitchen(game_server: GameServer, tmp_path: Path) -> Kitchen:
    (tmp_path / "protos").symlink_to(ROOT / "protos")
    environment = clean_environment() | {"PATH": f"{BIN}:/usr/bin:/bin", "HEADSTART_DRAIN": "0.5"}
    return Kitchen(tmp_path, {"localhost:50051": game_server.address}, environment)


def steadied(text: str) -> str:
    """The text without what differs from run to run: times, durations, numbers of a model.

    And without estimates: there are none until the API has heard of durations from a worker.
    """
    text = re.sub(r',?\s*"estimate": \{[^}]*\}', "", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r'"elapsed": "[\d.]+s"', '"elapsed": "SECONDS"', text)
    text = re.sub(r'"started_us": "\d+"', '"started_us": "MICROSECONDS"', text)
    text = re.sub(r"-?\d\.\d{3,}(e-\d+)?", "NUMBER", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def matches(printed: str, said: str) -> bool:
    """Whether `said` is what the page says; a line of … is any number of lines, even none."""
    lines = [
        r"(?:.*\n)*?" if line.strip() == LEFT_OUT else re.escape(line) + r"\n"
        for line in steadied(said).splitlines()
    ]
    return re.fullmatch("".join(lines), steadied(printed) + "\n") is not None


async def test_every_line_prints_what_the_page_says(kitchen: Kitchen):
    async with AsyncExitStack() as stack:
        for recipe in RECIPES:
            if recipe.command.startswith(SERVE):
                await kitchen.serve(recipe.command.strip(), stack)
                continue
            code, printed = await kitchen.run(recipe.command)
            assert (code != 0) is recipe.fails, printed
            if recipe.printed:
                said = f"{recipe.command}\nprints:\n{printed}"
                assert matches(printed, recipe.printed), said


def test_every_call_of_the_page_shows_what_it_prints():
    calls = [recipe for recipe in RECIPES if recipe.command.startswith("grpcurl ")]
    assert len(calls) > 20
    assert PAGE.count("```sh\n") == len(RECIPES)
    assert [recipe.command for recipe in calls if not recipe.printed.strip()] == []
    assert [recipe.command.split()[0] for recipe in RECIPES if recipe not in calls] == [
        "mkdir",
        "headstart",
    ]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_recipe(method: str):
    assert any(f"PrecomputeService/{method}" in recipe.command for recipe in RECIPES)


def test_what_differs_is_noticed():
    assert matches("a\nb\nc\n", "a\n…\nc\n")
    assert not matches("a\nb\nc\n", "a\n…\nd\n")
    assert matches(
        '"created_at": "2026-01-01T00:00:00.123Z"', '"created_at": "2020-01-01T00:00:00Z"'
    )
