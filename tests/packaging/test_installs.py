"""The light client on each Python and beside others' packages: `make test-installs`; needs PyPI."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.languages.tools import missing
from tests.support.pipelines import REFERENCES
from tests.support.processes import serving

pytestmark = pytest.mark.installs
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
NEIGHBOURS = (
    "google-cloud-pubsub",
    "google-cloud-storage[grpc]",
    "opentelemetry-exporter-otlp-proto-grpc",
    "tensorflow",
    "tritonclient[grpc]",
    "weaviate-client",
)
SCRIPT = Path(__file__).with_name("light_client.py")
WHEELS = ("--only-binary", ":all:")
"""Nothing is compiled here: whoever installs the client has a wheel of each package."""


def uv(*arguments: object, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "uv", "--no-config", *map(str, arguments)],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )


def resolved(python: str, *requirements: str) -> dict[str, str]:
    """The newest versions that fit together, by name. Skips without a network."""
    options = ("--quiet", "--python-version", python, "--no-header", "--no-annotate", *WHEELS)
    done = uv("pip", "compile", *options, "-", given="\n".join(requirements))
    if done.returncode and re.search("dns error|error sending|timed out|onnect", done.stderr):
        missing("PyPI", done.stderr)
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[.*\])?==(\S+)", done.stdout, re.MULTILINE))


def interpreter(version: str) -> Path:
    """A Python of this version: this one, one on PATH, or one of pyenv's. Skips without one."""
    shims = Path.home() / ".pyenv" / "versions"
    found = [sys.executable, shutil.which(f"python{version}")]
    found += sorted(shims.glob(f"{version}.*/bin/python"))
    for python in filter(None, found):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return Path(python)
    pytest.skip(f"there is no Python {version} here")


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
@pytest.mark.parametrize("python", PYTHONS)
def test_it_resolves_beside_the_newest_version_of(wheel: Path, python: str, neighbour: str):
    name = neighbour.partition("[")[0]
    alone = resolved(python, neighbour)
    beside = resolved(python, neighbour, f"headstart @ {wheel.as_uri()}")
    assert beside[name] == alone[name]
    assert beside["grpcio"]
    assert beside["protobuf"]


@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
@pytest.mark.parametrize("python", PYTHONS)
async def test_the_light_client_starts_and_gets_runs_on(
    wheel: Path, tmp_path: Path, python: str, resolution: str
):
    home = tmp_path / "light"
    assert uv("venv", home, "--python", interpreter(python)).returncode == 0
    options = ("--python", home, "--resolution", resolution, *WHEELS)
    done = await asyncio.to_thread(uv, "pip", "install", *options, wheel)
    if done.returncode:
        missing("PyPI", done.stderr)
    settings = {"HEADSTART_PIPELINES": REFERENCES, "HEADSTART_BRIDGING": "false"}
    async with serving(**settings, HEADSTART_DATA_DIR=str(tmp_path / "data")) as (_, address):
        light = await asyncio.create_subprocess_exec(
            *(home / "bin" / "python", "-W", "error", SCRIPT, address),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await light.communicate()
    assert light.returncode == 0, printed.decode()
    print(printed.decode())  # pytest -s or -rP shows which versions these were
