"""What the documents say to run, run as they say it."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.integration.conftest import GameServer
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


@contextmanager
def package_index() -> Iterator[str]:
    """Serve one package's summary, as PyPI does, and give the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"info": {"summary": f"summary of {self.path}"}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_files(directory: Path) -> None:
    """Write the Python files of the page, each under the name that stands above it."""
    files = dict(re.findall(r"`(\w+\.py)`[^`]*:\n\n```python\n(.*?)```", README, re.DOTALL))
    assert len(files) == len(blocks(README, "python"))
    for name, code in files.items():
        (directory / name).write_text(code)


async def typed(line: str, **environment: str) -> str:
    """Run a command of the page as a reader does who has activated the environment."""
    name, *arguments = shlex.split(line)
    beside = Path(sys.executable).with_name(name)
    command = str(beside) if beside.exists() else name
    return await run(command, *arguments, **environment)


async def test_the_pipeline_is_served_started_and_read(tmp_path: Path):
    write_files(tmp_path)
    own = README.partition("## A pipeline of your own")[2].partition("\n## ")[0]
    [(variable, pipeline)] = re.findall(r"`(\w+)=(\S+) make run`", own)
    [commands] = blocks(own, "sh")
    activation, *lines = commands.splitlines()
    assert activation == ". .venv/bin/activate"
    with package_index() as index:
        settings = {
            "PYTHONPATH": str(tmp_path),
            "HEADSTART_BRIDGING": "false",
            "HEADSTART_DATA_DIR": str(tmp_path / "data"),
            "INDEX": index,
            variable: pipeline,
        }
        async with serving(**settings) as (_, address):
            printed = [await typed(line, HEADSTART_ADDRESS=address) for line in lines]
    assert printed[0].startswith("started: revision 1")
    assert 'summary: "summary of /pydantic/json"' in printed[1]


@pytest.mark.parametrize("served", [True, False])
async def test_the_application_answers_with_and_without_the_service(
    tmp_path: Path, *, served: bool
):
    write_files(tmp_path)
    call = README.partition("## Call it from an application")[2].partition("\n## ")[0]
    [commands] = blocks(call, "sh")
    serve, *curls = commands.splitlines()
    command = shlex.split(serve.replace("--port 8000", "--port 0"), comments=True)
    with package_index() as index:
        settings = {"PYTHONPATH": str(tmp_path), "INDEX": index}
        async with AsyncExitStack() as stack:
            address = "127.0.0.1:1"
            if served:
                server = serving(
                    HEADSTART_PIPELINES="package:PACKAGE",
                    HEADSTART_BRIDGING="false",
                    HEADSTART_DATA_DIR=str(tmp_path / "data"),
                    **settings,
                )
                _, address = await stack.enter_async_context(server)
            environment = clean_environment() | settings | {"HEADSTART_ADDRESS": address}
            application = Process([sys.executable, "-m", *command], environment, tmp_path)
            stack.callback(application.stop)
            found = await application.says(r"running on http://127\.0\.0\.1:(\d+)")
            here = [line.replace("localhost:8000", f"127.0.0.1:{found[1]}") for line in curls]
            chosen, shown = [json.loads(await typed(f"{line} -sS")) for line in here]
    assert chosen is None
    assert shown["summary"] == "summary of /fastapi/json"
    assert shown["source"] in (("ready", "waited", "live") if served else ("live",))


async def test_the_commands_run_in_their_order(game_server: GameServer):
    other = README.partition("## Call it from anywhere")[2].partition("\n## ")[0]
    commands = "".join(blocks(other, "sh")).splitlines()
    assert len(commands) == 4
    for line in commands:
        here = line.replace("localhost:50051", game_server.address)
        assert (await typed(here, HEADSTART_ADDRESS=game_server.address)).strip()


def test_the_pages_call_the_commands_in_one_way_and_name_no_package_that_no_index_has():
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")):
        text = page.read_text()
        assert not re.findall(r"\.venv/bin/(?!activate)\S+", text), page
        assert not re.findall(r"pip install '?headstart\b.*", text), page


def test_every_decision_is_in_the_index():
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    for page in folder.glob("0*.md"):
        assert f"({page.name})" in index
