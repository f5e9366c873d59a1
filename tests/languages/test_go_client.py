"""The Go client's own tests against a real server, and its generated stubs."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.languages.tools import GO_CLIENT, GO_SOURCES, go_stubs, missing
from tests.support.replicas import Replicas

pytestmark = [pytest.mark.languages, pytest.mark.asyncio(loop_scope="module")]

MODULE = Path("src") / "headstart.example" / "client"


@pytest.fixture(autouse=True)
def toolchain() -> None:
    needed = ("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc")
    lacking = [name for name in needed if shutil.which(name) is None]
    lacking += [] if (GO_SOURCES / "src" / "google.golang.org" / "grpc").exists() else ["grpc"]
    if lacking:
        missing(", ".join(lacking), "Debian has it; .ci/run names the packages")


async def test_its_own_tests_pass_against_a_server(
    replicas: Replicas, secured: dict[str, str], tmp_path: Path
):
    # Debian's packages are sources in a GOPATH, so the client's are too.
    shutil.copytree(GO_CLIENT, tmp_path / MODULE)
    own = await replicas.add(HEADSTART_MAX_CONNECTION_AGE="1")
    settings = {
        "GO111MODULE": "off",
        "GOPATH": f"{tmp_path}:{GO_SOURCES}",
        "GOFLAGS": "",
        "GOCACHE": os.environ.get("GOCACHE", str(tmp_path / "cache")),
        "HEADSTART_ADDRESS": own.address,
    }
    done = await asyncio.to_thread(
        subprocess.run,
        ("go", "test", "-tags", "debian", "-count=1", "-v", "."),
        cwd=tmp_path / MODULE,
        env=os.environ | settings | secured,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    own.process.kill()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SKIP" not in done.stdout


async def test_its_stubs_are_those_of_the_contract(tmp_path: Path):
    go_stubs(tmp_path)
    assert _stubs(tmp_path) == _stubs(GO_CLIENT), "make proto-clients generates them anew"


def _stubs(directory: Path) -> dict[Path, list[str]]:
    """The generated files' lines, but those that name the generators' versions."""
    return {
        path.relative_to(directory): [
            line for line in path.read_text().splitlines() if not line.startswith("// \t")
        ]
        for path in directory.rglob("*.pb.go")
    }
