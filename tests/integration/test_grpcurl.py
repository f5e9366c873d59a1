"""docs/grpcurl.md, line by line: run in its order, and compared with what it says is printed."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import GameServer
from tests.support.certificates import authority, signed
from tests.support.processes import ROOT, api, clean_environment
from tests.support.tokens import tokens_of
from tests.support.valkey import Valkey

PAGE = (ROOT / "docs" / "grpcurl.md").read_text()
GRPCURL = Path(sys.executable).with_name("grpcurl")
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
        return self.printed.startswith(("ERROR:", "Error ", '{\n  "code"'))


RECIPES = [
    Recipe(command, printed)
    for command, printed in re.findall(
        r"```sh\n(.*?)```\n(?:\n```text\n(.*?)```)?", PAGE, re.DOTALL
    )
]


@dataclass(frozen=True)
class Kitchen:
    """Where the commands run."""

    directory: Path
    addresses: Mapping[str, str]
    """The real address of each that the page names."""
    token: str

    async def run(self, command: str) -> tuple[int, str]:
        """The exit code, and what is printed."""
        for named, real in self.addresses.items():
            command = command.replace(named, real)
        done = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-c", command],
            cwd=self.directory,
            env=clean_environment()
            | {"TOKEN": self.token, "PATH": f"{GRPCURL.parent}:/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout


@asynccontextmanager
async def kitchen(
    game_server: GameServer, valkey: Valkey, directory: Path
) -> AsyncIterator[Kitchen]:
    root = authority(directory, "ca")
    server = signed(root, directory, "server")
    signed(root, directory, "client")
    (directory / "protos").symlink_to(ROOT / "protos")
    tokens = tokens_of(shop=("shop", "read,write"))
    secured = {
        "HEADSTART_TLS_CERT": str(server.cert),
        "HEADSTART_TLS_KEY": str(server.key),
        "HEADSTART_TOKENS": str(tokens.written(directory / "tokens")),
        "HEADSTART_BRIDGING": "false",
    }
    mutual = secured | {"HEADSTART_TLS_CLIENT_CA": str(root.cert)}
    async with AsyncExitStack() as stack:
        (_, tls), (_, mtls) = await asyncio.gather(
            stack.enter_async_context(api(valkey.url, **secured)),
            stack.enter_async_context(api(valkey.url, **mutual)),
        )
        addresses = {
            "localhost:50051": game_server.address,
            "localhost:50443": f"localhost:{tls.rpartition(':')[2]}",
            "localhost:50444": f"localhost:{mtls.rpartition(':')[2]}",
            "127.0.0.1:50443": tls,
        }
        yield Kitchen(directory, addresses, tokens.by_name["shop"])


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


async def test_every_line_prints_what_the_page_says(
    game_server: GameServer, valkey: Valkey, tmp_path: Path
):
    async with kitchen(game_server, valkey, tmp_path) as place:
        for recipe in RECIPES:
            code, printed = await place.run(recipe.command)
            assert (code != 0) is recipe.fails, printed
            assert matches(printed, recipe.printed), f"{recipe.command}\nprints:\n{printed}"


def test_every_command_of_the_page_shows_what_it_prints():
    assert len(RECIPES) > 30
    assert PAGE.count("```sh\n") == len(RECIPES)
    assert [recipe.command for recipe in RECIPES if not recipe.printed.strip()] == []


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_recipe(method: str):
    assert any(f"PrecomputeService/{method}" in recipe.command for recipe in RECIPES)


def test_what_differs_is_noticed():
    assert matches("a\nb\nc\n", "a\n…\nc\n")
    assert not matches("a\nb\nc\n", "a\n…\nd\n")
    assert matches(
        '"created_at": "2026-01-01T00:00:00.123Z"', '"created_at": "2020-01-01T00:00:00Z"'
    )
