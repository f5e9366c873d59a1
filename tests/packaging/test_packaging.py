"""What a user installs: the light client alone, at the lowest versions that it claims."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from deploy.pins import needed, pins
from headstart_service.commands.cli import SERVER_COMMANDS
from tests.packaging.commands import run
from tests.support.pipelines import REFERENCES
from tests.support.processes import Process, address_of, clean_environment, serving

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "client" / "headstart" / "v1"
PIPELINES = (ROOT / "docs" / "pipelines.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="session")
def light_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the light client and the lowest versions of what it needs.

    `make test-installs` runs it on the newest versions, and on other Pythons.
    """
    directory = tmp_path_factory.mktemp("light")
    venv.create(directory, with_pip=False)
    python = directory / "bin" / "python"
    lowest = [requirement.replace(">=", "==") for requirement in PROJECT["dependencies"]]
    # Compiling what the tests import takes a part of what compiling everything does.
    pip(python, "install", "--quiet", "--no-compile", wheel, *lowest)
    return python


@pytest.fixture(scope="session")
def pipelines_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the extras that docs/pipelines.md begins with, and nothing more."""
    extras = re.search(r"pip install .*\[(server,.*?)\]", PIPELINES)
    assert extras is not None
    directory = tmp_path_factory.mktemp("pipelines")
    venv.create(directory, with_pip=False)
    python = directory / "bin" / "python"
    pip(python, "install", "--quiet", "--no-compile", "--no-deps", wheel)
    [packages] = directory.glob("lib/python*/site-packages")
    # What pip would download and compile is here already: links to it take no time.
    for name in needed(extras[1]):
        found = distribution(name)
        for part in {file.parts[0] for file in found.files or ()} - {".."}:
            if not (packages / part).exists():
                (packages / part).symlink_to(str(found.locate_file(part)))
    return python


def pip(python: Path, *arguments: object) -> str:
    """Run this environment's pip on another, which needs none of its own."""
    own = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    return run(*own, *arguments)


def test_the_light_client_brings_grpcio_and_protobuf_and_nothing_else(light_python: Path):
    listed = pip(light_python, "list", "--format=freeze").split()
    names = {line.partition("==")[0].lower() for line in listed}
    # grpcio itself needs typing-extensions.
    assert names - {"typing-extensions", "typing_extensions"} == {
        "headstart",
        "grpcio",
        "protobuf",
    }


def test_the_light_client_works_at_its_lowest_versions(light_python: Path):
    script = (
        "import asyncio, headstart\n"
        "from headstart.v1 import precompute_pb2_grpc\n"
        "eager = headstart.EagerPrecompute.get_instance()\n"
        "print(eager.get_stats())\n"
        "print(asyncio.run(eager.get_precomputed_results('k')))\n"
    )
    environment = {"HEADSTART_ADDRESS": "127.0.0.1:1"}
    done = subprocess.run(
        [light_python, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "{'total_cached': 0, 'active_tasks': 0, 'status_counts': {}}",
        "None",
    ]


async def test_the_light_client_starts_and_gets_runs_at_its_lowest_versions(
    light_python: Path, tmp_path: Path
):
    settings = {"HEADSTART_PIPELINES": REFERENCES, "HEADSTART_BRIDGING": "false"}
    async with serving(**settings, HEADSTART_DATA_DIR=str(tmp_path / "data")) as (_, address):
        script = Path(__file__).with_name("light_client.py")
        printed = await asyncio.to_thread(run, light_python, "-W", "error", script, address)
    lowest = [requirement.replace(">=", " ") for requirement in PROJECT["dependencies"]]
    assert printed.strip().endswith(", ".join(lowest))


@pytest.mark.parametrize(
    "command",
    [*SERVER_COMMANDS, "completion bash", "pipelines check", "pipelines run a:B", "dev a:B"],
)
def test_a_command_without_its_extra_names_in_one_line_what_to_install(
    light_python: Path, command: str
):
    output = run(light_python.parent / "headstart", *command.split(), check=False)
    assert re.fullmatch(
        rf"headstart: {re.sub(' (bash|a:B)$', '', command)} needs (pydantic|shtab).*: "
        r"pip install '\.\[server\]' in Headstart's clone.*\n",
        output,
    ), output


def test_help_lists_no_command_that_cannot_work(light_python: Path):
    output = run(light_python.parent / "headstart", "--help")
    listed = set(re.findall(r"^    ([a-z-]+) ", output, re.MULTILINE))
    assert {"start", "get", "watch", "doctor", "token"} <= listed
    assert not listed & {*SERVER_COMMANDS, "completion", "dev"}
    assert "pip install '.[server]'" in " ".join(output.split())


async def test_the_first_pipeline_of_the_page_runs_on_the_extras_that_the_page_names(
    pipelines_python: Path, tmp_path: Path
):
    headstart = str(pipelines_python.with_name("headstart"))
    (tmp_path / "article.py").write_text(
        re.findall(r"```python\n(.*?)```", PIPELINES, re.DOTALL)[0]
    )
    environment = clean_environment() | {
        "PYTHONPATH": str(tmp_path),
        "HEADSTART_PIPELINES": "article:PIPELINE",
        "HEADSTART_BRIDGING": "false",
        "HEADSTART_DATA_DIR": str(tmp_path / "data"),
        "HEADSTART_GRPC_PORT": "0",
        "HEADSTART_HTTP_PORT": "0",
        "HEADSTART_DRAIN": "0.5",
    }
    server = Process([headstart, "serve"], environment, tmp_path)
    try:
        address = await address_of(server)
        inputs = '{"text": "Bread wants flour. Flour!", "count": 1}'
        arguments = ("page-1", "--address", address, "--pipeline", "article", "--inputs", inputs)
        run(headstart, "start", *arguments)
        shown = run(headstart, "get", "page-1", "--address", address, "--wait", "20", "--complete")
    finally:
        server.stop()
    assert 'keywords: ["flour"]' in shown
    assert "numpy" not in pip(pipelines_python, "list")


def test_steps_with_http_or_a_language_model_need_no_torch():
    wanted = needed("language-model")
    assert {"anthropic", "httpx2", "pydantic", "redis"} <= wanted
    assert not wanted & {"torch", "numpy", "sentence-transformers"}
    assert wanted < needed("worker")


def test_the_floors_are_what_the_generated_stubs_demand():
    grpc = re.search(
        r"GRPC_GENERATED_VERSION = '(.+)'", (STUBS / "precompute_pb2_grpc.py").read_text()
    )
    protobuf = re.search(
        r"PUBLIC,\s+(\d+),\s+(\d+),\s+(\d+)", (STUBS / "precompute_pb2.py").read_text()
    )
    assert grpc is not None
    assert protobuf is not None
    assert PROJECT["dependencies"] == [
        f"grpcio>={grpc[1]}",
        f"protobuf>={'.'.join(protobuf.groups())}",
    ]


def test_the_stubs_are_generated_by_the_pinned_tools():
    tools = pins(ROOT / "protos" / "toolchain.txt")
    assert [f"{name}>={tools[name]}" for name in ("grpcio", "protobuf")] == PROJECT["dependencies"]
    assert tools["grpcio-tools"] == tools["grpcio"]


def test_the_wheel_holds_both_packages_their_scripts_and_types(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "headstart/py.typed",
        "headstart/v1/precompute_pb2.pyi",
        "headstart_service/py.typed",
        "headstart_service/store/lua/start.lua",
        "headstart_service/dashboard/static/index.html",
        "headstart_service/dashboard/static/main.js",
        "headstart_service/dashboard/static/style.css",
    } <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]
