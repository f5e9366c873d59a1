"""The TypeScript client's own tests against real servers, and its generated stubs."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from tests.languages.tools import (
    TYPESCRIPT_CLIENT,
    install_node_packages,
    node,
    node_environment,
    typescript_stubs,
)
from tests.support.processes import clean_environment
from tests.support.replicas import Replicas

pytestmark = [pytest.mark.languages, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    install_node_packages(TYPESCRIPT_CLIENT)


async def run(*command: str, **environment: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=TYPESCRIPT_CLIENT,
        env=clean_environment() | {"PATH": node_environment()["PATH"]} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_its_own_tests_pass_against_a_server(replicas: Replicas, secured: dict[str, str]):
    # No server of other tests, which kill theirs. Its connections do not get old.
    own = await replicas.add(HEADSTART_MAX_CONNECTION_AGE="1")
    port = (await own.process.says(r"HTTP on \S+:(\d+)"))[1]
    tests = TYPESCRIPT_CLIENT / "build" / "test"
    compiler = str(TYPESCRIPT_CLIENT / "node_modules" / "typescript" / "bin" / "tsc")
    await run(node(), compiler)
    await run(node(), compiler, "-p", "test")
    said = await run(
        *(node(), "--test", *sorted(map(str, tests.glob("*.test.js")))),
        HEADSTART_ADDRESS=own.address,
        HEADSTART_URL=f"http://127.0.0.1:{port}",
        **secured,
    )
    own.process.kill()
    assert "skipped 0" in said


async def test_its_stubs_are_those_of_the_contract(tmp_path: Path):
    typescript_stubs(tmp_path)
    kept = TYPESCRIPT_CLIENT / "src" / "gen"
    assert _stubs(tmp_path) == _stubs(kept), "make proto-clients generates them anew"


def _stubs(directory: Path) -> dict[Path, str]:
    return {path.relative_to(directory): path.read_text() for path in directory.rglob("*.ts")}
