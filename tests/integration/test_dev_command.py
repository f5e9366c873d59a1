"""`headstart dev`: a real process, edited files, and what it prints of each."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headstart_service.base import exit_codes
from tests.support.commands import OnTerminal, run
from tests.support.processes import ROOT, Process, clean_environment
from tests.support.waiting import wait_until

MODULE = """\
from pathlib import Path
from pydantic import BaseModel
from headstart_service.sdk import Pipeline, step
from . import helpers
class Text(BaseModel, extra="forbid"):
    text: str
def note(name):
    with open("notes", "a") as file:
        file.write(name + " ")
@step(required=True)
async def words(text: str) -> list[str]:
    note("words")
    return text.split()
@step(runs_on="thread")
def shown(words: list[str]) -> str:
    note("shown")
    return helpers.joined(words)
@step()
async def count(words: list[str]) -> int:
    note("count")
    return len(words)
TEXT = Pipeline("text", "1", "", Text, (words, shown, count))
"""
HELPERS = "def joined(words):\n    return '-'.join(words)\n"


class Author:
    """Somebody who edits a package while the command runs."""

    def __init__(self, folder: Path, process: Process) -> None:
        self.folder = folder
        self.process = process
        self._read = 0

    async def turn(self) -> str:
        """What the command has printed of the next turn."""

        def printed() -> str:
            head, end, _ = self.process.output[self._read :].partition("; Ctrl-C ends\n")
            assert self.process.alive, self.process.tail
            return head + end if end else ""

        text = await wait_until(printed)
        self._read += len(text)
        return text

    def computed(self) -> set[str]:
        """The steps that have run since the last call."""
        notes = self.folder / "notes"
        found = set(notes.read_text().split()) if notes.exists() else set()
        notes.unlink(missing_ok=True)
        return found

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@contextmanager
def author(
    folder: Path, *arguments: str, what: str = "edited_package:TEXT", **settings: str
) -> Iterator[Author]:
    package = folder / "edited_package"
    package.mkdir()
    (package / "__init__.py").write_text(MODULE)
    (package / "helpers.py").write_text(HELPERS)
    environment = clean_environment() | {
        "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT / "client"), str(ROOT / "service"))),
        "PYTHONUNBUFFERED": "1",
        **settings,
    }
    command = [sys.executable, "-m", "headstart_service", "dev", what]
    process = Process([*command, *arguments], environment, folder)
    try:
        yield Author(folder, process)
    finally:
        process.stop()


async def test_a_change_is_shown_at_once_and_computes_what_it_concerns(tmp_path: Path):
    inputs = tmp_path / "inputs.json"
    inputs.write_text('{"text": "a b"}')
    with author(tmp_path, "--inputs", "inputs.json") as edits:
        printed = await edits.turn()
        assert "text: completed in" in printed
        assert '"a-b"' in printed
        assert edits.computed() == {"words", "shown", "count"}

        edits.edit("edited_package/__init__.py", "len(words)", "len(words) * 10")
        printed = await edits.turn()
        assert "changed: edited_package/__init__.py" in printed
        assert "20" in printed
        assert printed.count("kept") == 2
        assert edits.computed() == {"count"}

        edits.edit("edited_package/helpers.py", "'-'", "'+'")
        printed = await edits.turn()
        assert '"a+b"' in printed
        assert edits.computed() == {"words", "shown", "count"}

        inputs.write_text('{"text": "c d e"}')
        printed = await edits.turn()
        assert "changed: inputs.json" in printed
        assert '"c+d+e"' in printed

        (tmp_path / "edited_package" / "unused.py").write_text("# nothing yet\n")
        assert (await edits.turn()).count("kept") == 3


async def test_a_change_of_data_that_it_reads_computes_all_anew(tmp_path: Path):
    package = tmp_path / "edited_package"
    with author(tmp_path, "--inputs", '{"text": "a b"}') as edits:
        await edits.turn()
        sign = "(Path(__file__).parent / 'data' / 'sign.txt').read_text()"
        edits.edit("edited_package/helpers.py", "'-'", sign)
        edits.edit("edited_package/helpers.py", "def", "from pathlib import Path\ndef")
        assert "step shown: FileNotFoundError" in await edits.turn()

        (package / "data").mkdir()
        (package / "data" / "sign.txt").write_text("=")
        printed = await edits.turn()
        assert "changed: edited_package/data/sign.txt\n" in printed
        assert '"a=b"' in printed
        edits.computed()

        (package / "data" / "unread.txt").write_text("nothing")
        (package / "data" / "sign.txt").write_text("+")
        printed = await edits.turn()
        assert "changed: edited_package/data/sign.txt\n" in printed
        assert '"a+b"' in printed
        assert edits.computed() == {"words", "shown", "count"}


async def test_a_file_that_a_step_writes_starts_no_run(tmp_path: Path):
    writes = "note(name):\n    log = Path(__file__).parent / 'log.txt'\n"
    writes += "    log.write_text((log.read_text() if log.exists() else '') + name)\n"
    with author(tmp_path, "--inputs", '{"text": "a b"}') as edits:
        await edits.turn()
        edits.edit("edited_package/__init__.py", "note(name):\n", writes)
        assert "changed: edited_package/__init__.py\n" in await edits.turn()
        edits.edit("edited_package/helpers.py", "'-'", "'+'")
        assert "changed: edited_package/helpers.py\n" in await edits.turn()


PROVIDER = """\
from contextlib import asynccontextmanager
class Shelf:
    kept = "salt"
@asynccontextmanager
async def shelf():
    yield Shelf()
"""


async def test_a_changed_provider_is_opened_anew(tmp_path: Path):
    (tmp_path / "shelves.py").write_text(PROVIDER)
    own = {"HEADSTART_PROVIDERS": "shelves:shelf"}
    with author(tmp_path, "--inputs", '{"text": "a b"}', **own) as edits:
        await edits.turn()
        edits.edit("edited_package/__init__.py", "count(words: list[str])", "count(words, shelf)")
        edits.edit("edited_package/__init__.py", "-> int", "-> str")
        edits.edit("edited_package/__init__.py", "len(words)", "shelf.kept")
        assert '"salt"' in await edits.turn()
        edits.edit("shelves.py", "salt", "pepper")
        printed = await edits.turn()
        assert "changed: shelves.py" in printed
        assert '"pepper"' in printed


async def test_a_file_that_was_watched_beside_a_mistake_is_not_called_changed(tmp_path: Path):
    (tmp_path / "neighbour.py").write_text("")
    module = MODULE.replace("from . import helpers\n", "").replace("helpers.joined", "'-'.join")
    (tmp_path / "alone.py").write_text(module)
    with author(tmp_path, "--inputs", '{"text": "a b"}', what="alone:TEXT") as edits:
        await edits.turn()
        edits.edit("alone.py", "return text", "retrun text")
        assert "watching 2 files" in await edits.turn()
        edits.edit("alone.py", "retrun text", "return text")
        assert "watching 1 file;" in await edits.turn()
        edits.edit("alone.py", "len(words)", "len(words) * 10")
        printed = await edits.turn()
        assert "changed: alone.py\n" in printed
        assert printed.count("kept") == 2


async def test_mistakes_are_shown_as_the_check_shows_them_and_end_nothing(tmp_path: Path):
    with author(tmp_path, "--inputs", '{"text": "a b"}') as edits:
        await edits.turn()
        edits.edit("edited_package/__init__.py", "count(words:", "count(wrods:")
        printed = await edits.turn()
        assert (
            "edited_package/__init__.py:19: step count: parameter wrods is no input, step or "
            "provider of pipeline text; did you mean words?\n"
        ) in printed

        edits.edit("edited_package/helpers.py", "return", "retrun")
        edits.edit("edited_package/__init__.py", "wrods", "words")
        assert "edited_package/helpers.py:2: invalid syntax\n" in await edits.turn()

        edits.edit("edited_package/helpers.py", "retrun", "raise OSError('gone')\n    return")
        printed = await edits.turn()
        assert "edited_package/helpers.py:2: step shown: OSError: gone\n" in printed

        edits.edit("edited_package/__init__.py", "text: str\n", "text: int\n")
        assert "step words: parameter text is str, but input text is int" in await edits.turn()

        edits.edit("edited_package/__init__.py", "text: int\n", "other: str\n    text: str\n")
        printed = await edits.turn()
        assert "headstart: no run was started: custom.inputs.other: Field required\n" in printed


async def test_a_change_stops_the_run_under_way_and_keeps_what_it_has_completed(tmp_path: Path):
    with author(tmp_path, "--inputs", '{"text": "a b"}') as edits:
        await edits.turn()
        waits = "await __import__('asyncio').Event().wait()\n    return len(words)"
        module = tmp_path / "edited_package" / "__init__.py"
        text = module.read_text().replace("return text", "return text[:1]")
        # `count` begins once `shown` has been kept.
        text = text.replace(
            "def count(words: list[str])", "def count(words: list[str], shown: str)"
        )
        edits.computed()
        module.write_text(text.replace("return len(words)", waits))
        await wait_until(lambda: "count" in edits.computed())
        edits.edit("edited_package/__init__.py", waits, "return len(words) + 5")
        printed = await edits.turn()
        assert "Traceback" not in printed
        assert edits.computed() == {"count"}
        assert " 6" in printed


async def test_json_is_a_line_for_each_run_or_its_mistakes(tmp_path: Path):
    with author(tmp_path, "--inputs", '{"text": "a b"}', "--json") as edits:

        def lines() -> list[dict]:
            return [json.loads(line) for line in edits.process.output.splitlines()]

        await wait_until(lambda: len(lines()) == 1)
        edits.edit("edited_package/helpers.py", "return", "retrun")
        await wait_until(lambda: len(lines()) == 2)
        ran, wrong = lines()
        assert ran["custom"]["shown"] == "a-b"
        assert wrong == {
            "mistakes": [
                {"where": "edited_package/helpers.py:2", "text": wrong["mistakes"][0]["text"]}
            ]
        }
        edits.process.send(signal.SIGINT)
        assert await wait_until(lambda: not edits.process.alive)


async def test_on_a_terminal_enter_computes_anew_and_ctrl_c_ends(tmp_path: Path):
    (tmp_path / "notes_here.py").write_text(
        MODULE.replace("from . import helpers\n", "").replace("helpers.joined(words)", "'x'")
        .replace('"notes"', repr(str(tmp_path / "notes")))
    )  # fmt: skip
    arguments = ("dev", "notes_here:TEXT", "--inputs", '{"text": "a b"}')
    with OnTerminal(*arguments, columns=100, PYTHONPATH=str(tmp_path)) as command:
        await wait_until(lambda: command.printed.count("Ctrl-C ends") == 1)
        command.enter("\n")
        await wait_until(lambda: command.printed.count("Ctrl-C ends") == 2)
        assert (tmp_path / "notes").read_text().split().count("words") == 2
        command.process.send_signal(signal.SIGINT)
        assert command.ended() == exit_codes.INTERRUPTED
        assert "Traceback" not in command.printed


def test_what_nothing_can_mend_is_a_wrong_argument():
    done = run("dev", "nowhere_at_all:TEXT")
    assert (done.code, done.out) == (exit_codes.WRONG_ARGUMENTS, "")
    assert done.err == (
        "headstart: there is no module nowhere_at_all: is its directory on PYTHONPATH?\n"
    )
