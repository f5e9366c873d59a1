"""The operator's commands as people and scripts meet them: terminals, pipes, signals, examples."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart_service.commands.operator.accounting_view import duration
from tests.integration.conftest import GameServer, grpc_address
from tests.support.commands import OnTerminal, done_here
from tests.support.pipelines import REFERENCES
from tests.support.processes import ROOT, Process, clean_environment, run_headstart
from tests.support.waiting import wait_until

PAGE = (ROOT / "docs" / "cli.md").read_text()
LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}


@pytest.fixture(scope="module")
def light_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server of the test pipelines, with a misspelt setting."""
    process = run_headstart(
        "serve",
        HEADSTART_DATA_DIR=str(tmp_path_factory.mktemp("data")),
        HEADSTART_GRPC_PORT="0",
        HEADSTART_HTTP_PORT="0",
        HEADSTART_LEESE="1",
        **LIGHT,
    )
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="module")
def light_server(light_process: Process) -> str:
    """Its address."""
    return grpc_address(light_process)


def test_a_server_warns_once_of_a_setting_that_nobody_reads(
    light_process: Process, light_server: str
):
    warned = "HEADSTART_LEESE is no setting of Headstart: did you mean HEADSTART_LEASE?"
    assert light_process.output.count(warned) == 1


def started(address: str, key: str, directory: Path) -> None:
    inputs = json.dumps({"directory": str(directory)})
    done = done_here("start", key, "--pipeline", "probe", "--inputs", inputs, "--address", address)
    assert done.code == 0, done.err


async def test_watch_draws_a_bar_for_each_step_in_place_on_a_terminal(
    light_server: str, tmp_path: Path
):
    started(light_server, "live", tmp_path)
    with OnTerminal("watch", "live", "--address", light_server, columns=64) as terminal:

        def line(name: str) -> str:
            return next((each for each in terminal.screen if f" {name} " in each), "")

        await wait_until(lambda: "running" in line("gated"))
        first = line("gated")
        assert re.search(r"▸ gated +░*████░* +running", first)
        await wait_until(lambda: line("gated").split("running")[0] != first.split("running")[0])
        assert re.search(r"✔ first +█{16} +completed .* ms", line("first"))
        (tmp_path / "go").touch()
        assert await asyncio.to_thread(terminal.ended) == 0
    screen = terminal.screen
    assert screen[0].startswith("live  revision 1  2 of 2 steps  completed")
    assert re.search(r"✔ gated +█{16} +completed .*1 attempt", line("gated"))
    assert sum(" gated " in each for each in screen) == 1, "drawn in place"
    assert "gated: 10" in screen
    assert max(map(len, screen)) < 64
    assert "\x1b[32m" in terminal.printed
    assert terminal.printed.rindex("\x1b[?25h") > terminal.printed.rindex("\x1b[?25l")


async def test_watch_fits_a_small_terminal_and_obeys_no_color(light_server: str, tmp_path: Path):
    (tmp_path / "go").touch()
    started(light_server, "a-key-that-is-longer-than-the-terminal", tmp_path)
    with OnTerminal(
        *("watch", "a-key-that-is-longer-than-the-terminal", "--address", light_server),
        columns=30,
        rows=3,
        NO_COLOR="1",
    ) as terminal:
        assert await asyncio.to_thread(terminal.ended) == 0
    assert max(map(len, terminal.screen)) < 30
    assert not re.search(r"\x1b\[\d+m", terminal.printed)
    ups = [int(each) for each in re.findall(r"\x1b\[(\d+)F", terminal.printed)]
    assert max(ups, default=0) < 3, "it never moves up beyond the terminal's top"


async def test_ctrl_c_ends_a_watch_quietly_with_130_and_gives_the_cursor_back(
    light_server: str, tmp_path: Path
):
    started(light_server, "interrupted", tmp_path)
    with OnTerminal("watch", "interrupted", "--address", light_server, columns=80) as terminal:
        await wait_until(lambda: "running" in "".join(terminal.screen))
        terminal.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(terminal.ended) == 130
    assert "Traceback" not in terminal.printed
    assert terminal.printed.rindex("\x1b[?25h") > terminal.printed.rindex("\x1b[?25l")
    (tmp_path / "go").touch()


async def test_watch_prints_a_line_a_change_off_a_terminal_and_one_of_json_a_message(
    light_server: str, tmp_path: Path
):
    started(light_server, "plain", tmp_path)
    watches = [
        run_headstart("watch", "plain", "--address", light_server, *flags)
        for flags in ([], ["--json"])
    ]
    try:
        await watches[0].says("plain gated: running")
        await watches[1].says('"running"')
        (tmp_path / "go").touch()
        assert [await each.ended() for each in watches] == [0, 0]
        lines = watches[0].output.splitlines()
        assert lines[0] == "plain revision 1: in_progress"
        assert re.fullmatch(r"plain first: completed in [\d.]+ m?s", lines[1])
        # With an estimate, once the API has heard of durations from the worker.
        assert re.fullmatch(r"plain gated: running( \(~.+, p90 .+\))?", lines[2])
        assert re.fullmatch(r"plain gated: completed in [\d.]+ m?s", lines[3])
        assert lines[4:] == ["plain revision 1: completed"]
        messages = [json.loads(line) for line in watches[1].output.splitlines()]
        assert messages[-1]["status"] == "completed"
        assert messages[-1]["custom"] == {"first": 1, "gated": 10}
        assert messages[0]["steps"]["gated"]["state"] == "running"
    finally:
        for each in watches:
            each.stop()


async def test_a_watch_beyond_its_timeout_exits_with_4(light_server: str, tmp_path: Path):
    started(light_server, "slow", tmp_path)
    done = done_here("watch", "slow", "--timeout", "300ms", "--address", light_server)
    (tmp_path / "go").touch()
    assert done.code == 4
    assert done.err == "headstart: the run has not ended within 0.3 s\n"


async def test_tables_are_cut_to_the_terminal_and_whole_in_a_pipe(light_server: str):
    key = "k" * 120
    command = ("--pipeline", "noop", "--address", light_server)
    assert done_here("start", key, *command, "--inputs", "{}").code == 0
    with OnTerminal("list", *command, columns=70) as terminal:
        assert await asyncio.to_thread(terminal.ended) == 0
    assert max(map(len, terminal.screen)) <= 70
    assert "kkk…" in terminal.screen[1]
    assert key in done_here("list", *command).out


@pytest.mark.parametrize("command", [["list", "--json"], ["--help"], ["doctor"], ["token", "a"]])
def test_a_reader_that_has_gone_is_no_error(light_server: str, command: list[str]):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "headstart_service", *command],
        cwd=ROOT,
        # Buffered, as a user's Python: what nobody reads is then only found out at the end.
        env=clean_environment() | {"HEADSTART_ADDRESS": light_server, "PYTHONUNBUFFERED": ""},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def _shape(text: str) -> list[str]:
    """Return its lines without what differs from run to run: numbers, units, columns' widths."""
    text = re.sub(r"-?\d+(\.\d+)?( (ms|s|min|h))?\b", "N", text)
    return [" ".join(line.split()) for line in text.splitlines()]


def _matches(printed: str, shown: str) -> bool:
    """Whether the page shows what is printed; a line of … stands for any number of lines."""
    lines = [r"(?:.*\n)*?" if line == "…" else re.escape(line) + r"\n" for line in _shape(shown)]
    return (
        re.fullmatch("".join(lines), "".join(f"{line}\n" for line in _shape(printed))) is not None
    )


def test_a_line_that_the_page_does_not_show_is_noticed():
    assert _matches("a 1 ms\nx\ny\nb\n", "a 20 s\n…\nb\n")
    assert not _matches("a\nx\nb\n", "a\nb\n")
    assert not _matches("a\nx\nc\n", "a\n…\nb\n")


async def test_the_examples_of_the_page_print_what_it_shows(game_server: GameServer):
    (example,) = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    parts = re.split(r"^\$ headstart (.*)\n", example, flags=re.MULTILINE)[1:]
    commands = list(zip(parts[::2], parts[1::2], strict=True))
    assert len(commands) == 7
    for command, shown in commands:
        done = await asyncio.to_thread(
            done_here,
            *shlex.split(command),
            *("--namespace", "default-of-docs", "--address", game_server.address),
        )
        assert done.code == 0, done.err
        said = done.out.replace("default-of-docs", "default")
        # The page shows the word game alone, not the examples that `make run` serves beside it.
        said = "".join(
            line
            for line in said.splitlines(True)
            if not line.startswith(("text ", "text:", "factors ", "factors:"))
        )
        assert _matches(said, shown), f"{command}\nprints:\n{said}"


async def test_stats_account_for_every_start(light_server: str, tmp_path: Path):
    here = ("--namespace", "accounts", "--address", light_server)

    def asked(*command: str) -> str:
        done = done_here(*command, *here)
        assert done.code == 0, done.err
        return done.out

    waiting = ("--pipeline", "probe", "--inputs", json.dumps({"directory": str(tmp_path)}))
    asked("start", "read", "--pipeline", "chain")
    asked("get", "read", "--wait", "20", "--complete")
    asked("start", "forgotten", "--pipeline", "noop", "--ttl", "300ms")
    asked("start", "unwanted", *waiting)
    asked("cancel", "unwanted")
    asked("start", "twice", *waiting)
    asked("start", "twice", *waiting)
    asked("start", "twice", *waiting, "--restart")
    expected = {"used_waited": 1, "expired": 1, "cancelled": 1, "replaced": 1}

    def ledger() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(asked("stats", "--json"))["ledger"]
        return found

    def runs() -> dict[str, int]:
        return {fate: work["runs"] for fate, work in ledger()["fates"].items() if work["runs"]}

    await wait_until(lambda: "expired" in runs())  # the reader may have come after the end
    told = ledger()
    met = {fate: work["runs"] for fate, work in told["fates"].items() if work["runs"]}
    assert {fate.replace("_ready", "_waited"): count for fate, count in met.items()} == expected
    assert (told["starts"], told["unsettled"], told["joined"]) == (5, 1, 1)
    assert told["starts"] == sum(met.values()) + told["unsettled"]
    unread = [work["compute"] for fate, work in told["fates"].items() if fate[:4] != "used"]
    whole = sum(work["compute"] for work in told["fates"].values())
    text = asked("stats")
    (sentence,) = re.findall(
        r"^saved (.*) of user waiting; (\d+) % of the work was never read", text, re.MULTILINE
    )
    assert sentence == (duration(told["hidden"]), f"{100 * sum(unread) / whole:.0f}")
    assert f"{told['joined']} more starts joined a run, 0 found its result" in text
    for name, count in (("unused, expired", 1), ("not known yet", 1), ("all starts", 5)):
        assert re.search(rf"^{name} +{count}\b", text, re.MULTILINE), text
    assert not re.search(r"^(failed|unused, evicted) ", text, re.MULTILINE), "no run met these"
    (tmp_path / "go").touch()


def test_every_exit_code_is_in_the_page_and_none_else():
    from headstart_service.base import exit_codes

    table = PAGE.split("## Exit codes")[1].split("\n\n")[1]
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert told == {value for name, value in vars(exit_codes).items() if name.isupper()}


def test_a_run_of_another_revision_is_neither_cancelled_nor_touched(
    light_server: str, tmp_path: Path
):
    started(light_server, "spared", tmp_path)
    here = ("spared", "--address", light_server)
    touched = done_here("touch", *here, "--revision", "7")
    assert (touched.code, touched.err) == (
        3,
        "headstart: nothing is precomputed under default/spared revision 7\n",
    )
    assert done_here("touch", *here, "--revision", "1").code == 0
    found = done_here("cancel", *here, "--revision", "7")
    assert (found.code, found.err) == (0, "")
    assert re.fullmatch(r"spared: the key has revision 1, (pending|in_progress)\n", found.out)
    wrong = done_here("cancel", *here, "--revision", "-1")
    assert (wrong.code, wrong.out) == (2, "")
    assert "revision: must be 1 or more, or 0 for any, is -1" in wrong.err
    assert done_here("cancel", *here, "--revision", "1").out == "cancelled: cancelled\n"
    assert done_here("cancel", *here, "--revision", "1").out == "had ended before: cancelled\n"


def test_the_fields_of_json_are_those_of_the_page(light_server: str):
    assert done_here("start", "shapes", "--pipeline", "noop", "--address", light_server).code == 0
    cases = {
        "start": ["shapes", "--pipeline", "noop"],
        "get": ["shapes", "--wait", "20"],
        "list": ["--pipeline", "noop"],
        "cancel": ["shapes"],
        "stats": [],
        "pipelines": [],
        "doctor": [],
    }
    table = PAGE.split("## JSON")[1].split("## ")[0]
    for command, arguments in cases.items():
        [cell] = re.findall(rf"^\| `{command}` \| (.*) \|$", table, re.MULTILINE)
        fields = re.findall(r"\{(.*?)\}", cell)[0].split(", ")
        done = done_here(command, *arguments, "--json", "--address", light_server)
        value = json.loads(done.out)
        found = value[0] if isinstance(value, list) else value
        assert list(found) == fields, command
    settings = json.loads(done_here("check-config", "--json").out)
    [cell] = re.findall(r"^\| `check-config` \| (.*) \|$", table, re.MULTILINE)
    outer, inner = (each.split(", ") for each in re.findall(r"\{(.*?)\}", cell))
    assert (list(settings), list(settings["settings"][0])) == (outer, inner)
