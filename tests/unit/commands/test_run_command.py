"""`headstart pipelines run`: what it prints of a local run, and how it ends."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from headstart_service.base import exit_codes
from headstart_service.commands.cli import main
from tests.support.commands import OnTerminal
from tests.support.messages_api import MessagesApi, Reply
from tests.support.own_providers import KEY, written

MODULE = """\
import asyncio
from pydantic import BaseModel
from headstart_service.sdk import Pipeline, StepFailed, step
class Text(BaseModel, extra="forbid"):
    text: str
@step(required=True)
async def words(text: str) -> list[str]:
    print("splitting")
    return text.split()
@step(runs_on="thread")
def longest(words: list[str]) -> str:
    return max(words, key=len)
@step()
async def first(words: list[str]) -> str:
    return letter(words[0])
def letter(word):
    raise LookupError("no letter\\nat all")
@step(max_attempts=2, backoff=0)
async def refused(words: list[str]) -> str:
    raise StepFailed("it declined")
@step()
async def after(first: str) -> str:
    return first
GOOD = Pipeline("text", "1", "", Text, (words, longest))
TEXT = Pipeline("text", "1", "", Text, (words, longest, first, refused, after))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "author.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("author", None)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(["pipelines", "run", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


INPUTS = ("--inputs", '{"text": "some longer text"}')


def test_each_step_has_its_time_on_a_line_of_its_own_and_its_value(folder, capsys):
    code, out, err = run(capsys, "author:GOOD", *INPUTS)
    assert (code, err) == (exit_codes.DONE, "")
    printed, head, *rows = out.splitlines()
    assert printed == "splitting"
    assert re.fullmatch(r"text: completed in [\d.]+ m?s", head)
    assert rows[0].split() == ["STEP", "STATE", "TIMELINE", "TIME", "VALUE"]
    for row, name, value in zip(
        rows[1:], ("words", "longest"), ('["some", "longer", "text"]', '"longer"'), strict=True
    ):
        assert re.fullmatch(rf"{name} +completed +[█·#.]{{20}} +[\d.]+ m?s +(.+)", row)
        assert row.endswith(value)


def test_a_failure_has_the_line_of_the_author_that_raised_it(folder, capsys):
    code, out, err = run(capsys, "author:TEXT", *INPUTS)
    assert code == exit_codes.DONE
    by_step = {row.split()[0]: row for row in out.splitlines()[3:]}
    assert re.search(r"failed .* 1 +LookupError: no letter\\nat all$", by_step["first"])
    assert re.search(r"failed .* 2 +it declined$", by_step["refused"])
    assert re.search(r"skipped +first has no result$", by_step["after"])
    assert err.splitlines() == [
        r"author.py:17: step first: LookupError: no letter\nat all",
        "author.py:20: step refused: it declined",
    ]


def test_the_whole_traceback_is_there_on_demand(folder, capsys):
    code, _, err = run(capsys, "author:TEXT", *INPUTS, "--trace")
    assert code == exit_codes.DONE
    assert "Traceback (most recent call last):" in err
    assert 'author.py", line 15, in first' in err


def test_a_step_in_another_process_has_its_line_too(folder, capsys):
    text = MODULE.replace("@step()\nasync def first", '@step(runs_on="process")\ndef first')
    (folder / "author.py").write_text(text)
    code, _, err = run(capsys, "author:TEXT", *INPUTS)
    assert code == exit_codes.DONE
    assert err.splitlines()[0] == r"author.py:17: step first: LookupError: no letter\nat all"


def test_the_exit_code_is_that_of_the_run(folder, capsys):
    text = MODULE.replace("@step()\nasync def first", "@step(required=True)\nasync def first")
    (folder / "author.py").write_text(text)
    code, out, _ = run(capsys, "author:TEXT", *INPUTS)
    assert code == exit_codes.FAILED
    assert "text: failed in " in out


def test_complete_asks_for_every_result(folder, capsys):
    assert run(capsys, "author:GOOD", *INPUTS, "--complete")[0] == exit_codes.DONE
    code, _, err = run(capsys, "author:TEXT", *INPUTS, "--complete")
    assert code == exit_codes.INCOMPLETE
    assert err.splitlines()[-1] == "headstart: no result of first, refused, after"


def test_json_has_the_results_and_where_steps_failed(folder, capsys):
    code, out, err = run(capsys, "author:TEXT", *INPUTS, "--json")
    assert (code, err) == (exit_codes.DONE, "splitting\n")
    data = json.loads(out)
    assert (data["pipeline"], data["status"]) == ("text", "completed")
    assert data["custom"] == {"words": ["some", "longer", "text"], "longest": "longer"}
    assert data["steps"]["after"]["failure_reason"] == "need_failed"
    assert data["errors"][0] == {
        "step": "first",
        "where": "author.py:17",
        "text": r"LookupError: no letter\nat all",
    }


def test_inputs_may_stand_in_a_file(folder, capsys):
    (folder / "inputs.json").write_text('{"text": "a bc"}')
    code, out, _ = run(capsys, "author:GOOD", "--inputs", "inputs.json")
    assert code == exit_codes.DONE
    assert out.endswith('"bc"\n')


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("author:GOOD", "--inputs", "{}"), exit_codes.WRONG_ARGUMENTS, "inputs.text: Field requi"),
        (("author:GOOD", "--inputs", '{"txet": "a"}'), exit_codes.WRONG_ARGUMENTS, "inputs.txet"),
        (("author:GOOD", "--inputs", "[1]"), exit_codes.WRONG_ARGUMENTS, "must be a JSON object"),
        (("author:GOOD", "--inputs", "gone.json"), exit_codes.WRONG_ARGUMENTS, "gone.json: is no"),
        (("author",), exit_codes.WRONG_ARGUMENTS, "author is no MODULE:NAME"),
        (("author:words",), exit_codes.FAILED, "author:words is not a Pipeline"),
    ],
)
def test_what_cannot_be_run_is_named(folder, capsys, arguments, code, told):
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert told in err


def test_a_provider_that_lacks_something_is_named(folder, capsys, monkeypatch):
    monkeypatch.setenv("HEADSTART_MODEL", str(folder / "no-model"))
    monkeypatch.setenv("HEADSTART_PREPARED_MODELS", str(folder / "prepared"))
    text = MODULE.replace("words(text: str)", "words(text: str, embedder: object)")
    (folder / "author.py").write_text(text)
    code, out, err = run(capsys, "author:GOOD", *INPUTS)
    assert (code, out) == (exit_codes.WRONG_ARGUMENTS, "")
    assert "headstart model prepare" in err


def test_real_providers_are_given_to_steps(folder, capsys):
    text = MODULE.replace("words(text: str)", "words(text: str, http: object)")
    (folder / "author.py").write_text(text.replace("text.split()", "[type(http).__name__]"))
    code, out, _ = run(capsys, "author:GOOD", *INPUTS)
    assert code == exit_codes.DONE
    assert '["PatientClient"]' in out


def test_providers_of_authors_are_opened_for_steps(folder, capsys, monkeypatch):
    text = MODULE.replace("words(text: str)", "words(text: str, shelf: object)")
    (folder / "author.py").write_text(text.replace("text.split()", "[type(shelf).__name__]"))
    monkeypatch.setenv("HEADSTART_PROVIDERS", "shelf=contextlib:AsyncExitStack")
    code, out, _ = run(capsys, "author:GOOD", *INPUTS)
    assert code == exit_codes.DONE
    assert '["AsyncExitStack"]' in out


def test_a_step_in_a_process_uses_a_provider_of_that_process(folder, capsys, monkeypatch):
    for name, value in written(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HEADSTART_PROVIDERS", "stock_providers:shelf")
    monkeypatch.setenv("HEADSTART_PROVIDER_SHELF_PLACE", "cellar")
    monkeypatch.setenv("HEADSTART_PROVIDER_SHELF_KEY", KEY)
    try:
        code, out, err = run(capsys, "stock:PIPELINE", "--inputs", '{"item": "salt"}', "--json")
    finally:
        for name in ("stock", "stock_providers"):
            sys.modules.pop(name, None)
    assert (code, err) == (exit_codes.DONE, "")
    values = json.loads(out)["custom"]
    assert values["on_loop"] == values["in_thread"] == f"salt@cellar*3 by {os.getpid()}"
    assert values["in_process"].startswith("salt@cellar*3 by ")
    assert values["in_process"] != values["on_loop"]


def test_several_wrong_settings_have_a_line_each(folder, capsys, monkeypatch):
    monkeypatch.setenv("HEADSTART_LANGUAGE_MODEL", "ollama:tiny")
    code, _, err = run(capsys, "author:GOOD", *INPUTS)
    assert code == exit_codes.WRONG_ARGUMENTS
    assert err.startswith("headstart: wrong settings:\n  HEADSTART_LANGUAGE_MODEL = 'ollama:tiny'")


def test_a_language_model_is_asked_as_a_worker_asks_it(capsys, monkeypatch):
    with MessagesApi() as api:
        api.script(Reply.stream(["It is ", "short. "]))
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
        inputs = '{"document": "A long form.", "sentences": 1}'
        code, out, err = run(capsys, "headstart_streaming:PIPELINE", "--inputs", inputs)
    assert (code, err) == (exit_codes.DONE, "")
    assert '"text": "It is short."' in out


def test_a_run_that_takes_too_long_names_its_steps(folder, capsys):
    text = MODULE.replace('print("splitting")', "await asyncio.Event().wait()")
    (folder / "author.py").write_text(text)
    code, _, err = run(capsys, "author:GOOD", *INPUTS, "--timeout", "50ms")
    assert code == exit_codes.UNAVAILABLE
    assert "after 0.05 s these steps had not ended: words, longest" in err


def test_on_a_terminal_bars_move_and_make_room_for_the_table(folder):
    text = MODULE.replace("return text.split()", "await asyncio.sleep(0.3); return text.split()")
    (folder / "author.py").write_text(text)
    arguments = ("pipelines", "run", "author:GOOD", *INPUTS)
    with OnTerminal(*arguments, columns=90, PYTHONPATH=str(folder)) as command:
        assert command.ended() == exit_codes.DONE
        assert "words    ▸" in command.printed or "▸ words" in command.printed
        lines = [line for line in command.screen if line]
    assert lines[0] == "splitting"
    assert re.fullmatch(r"text: completed in \d+ ms", lines[1])
    assert [line.split()[0] for line in lines[2:]] == ["STEP", "words", "longest"]
