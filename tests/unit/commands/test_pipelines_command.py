"""`headstart pipelines check`: what it prints and how it ends, on modules and distributions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from headstart_service.base import exit_codes
from headstart_service.base.output import graph
from headstart_service.commands.cli import main

GOOD = """\
from pydantic import BaseModel
from headstart_service.sdk import Pipeline, step
class Text(BaseModel):
    text: str
@step(required=True)
async def words(text: str) -> list[str]:
    return text.split()
@step()
async def count(words: list[str], embedder: object) -> int:
    return len(words)
TEXT = Pipeline("text", "1", "Counts words", Text, (words, count))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a module of this name, which can be imported until the test ends."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write(text: str, name: str = "authors") -> None:
        (tmp_path / f"{name}.py").write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def distribution(folder: Path, name: str, *points: str) -> None:
    info = folder / f"{name.replace('-', '_')}-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.1\n")
    lines = "".join(f"{point}\n" for point in points)
    (info / "entry_points.txt").write_text(f"[headstart.pipelines]\n{lines}")


def check(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    code = main(["pipelines", "check", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_good_pipeline_is_shown_with_its_steps_and_graph(module, capsys) -> None:
    module(GOOD)
    code, out, err = check(capsys, "authors:TEXT")
    assert (code, err) == (exit_codes.DONE, "")
    assert [line.split() for line in out.splitlines()] == [
        ["PIPELINE", "STEP", "NEEDS", "INPUTS", "PROVIDERS", "RETURNS", "KIND"],
        ["text", "words", "text", "list[str]", "required"],
        ["text", "count", "words", "embedder", "int", "optional"],
        ["text:", "words", "->", "count"],
    ]


def test_every_mistake_is_reported_with_its_file_and_line(module, capsys) -> None:
    broken = GOOD.replace("words: list[str], embedder", "words: list[int], embeder")
    module(broken.replace("-> int:", "-> type:"))
    code, out, err = check(capsys, "authors:TEXT")
    assert code == exit_codes.FAILED
    assert "count" in out
    lines = err.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["authors.py:9"] * 3
    for line, text in zip(
        lines, ("type cannot be kept", "step words returns list[str]", "did you mean embedder"),
        strict=True,
    ):  # fmt: skip
        assert text in line


def test_json_has_steps_and_mistakes(module, capsys) -> None:
    module(GOOD.replace("embedder", "zzz"))
    code, out, err = check(capsys, "authors:TEXT", "--json")
    assert (code, err) == (exit_codes.FAILED, "")
    told = json.loads(out)
    assert told["mistakes"][0]["where"] == "authors.py:9"
    [pipeline] = told["pipelines"]
    assert pipeline["declared"] == "authors.py:11"
    assert pipeline["steps"][1] == {
        "name": "count",
        "needs": ["words"],
        "optional_needs": [],
        "inputs": [],
        "providers": ["zzz"],
        "output_type": "int",
        "required": False,
        "timeout": 30.0,
        "max_attempts": 1,
        "runs_on": "loop",
        "pool": "default",
        "version": "",
        "memo": False,
        "each": "",
        "parallel": 0,
        "max_items": 0,
    }


@pytest.mark.parametrize(
    ("text", "where", "told"),
    [
        ("import no_such_module\n", "authors.py:1", "No module named 'no_such_module'"),
        ("x = 1\nif x\n", "authors.py:2", "expected ':'"),
        ("x = 1\n1 / 0\n", "authors.py:2", "ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", "authors.py:2", "SystemExit: 3"),
        ("TEXT = 3\n", "authors:TEXT", "authors:TEXT is not a Pipeline"),
        (GOOD.replace("words, count)", "words)"), "authors.py:11", "Step"),
    ],
)
def test_a_module_that_cannot_be_imported_is_reported_at_its_line(
    module, capsys, text: str, where: str, told: str
) -> None:
    module(text)
    code, out, err = check(capsys, "authors:TEXT")
    assert (code, out) == (exit_codes.FAILED, "no pipelines\n")
    assert f"{where}: " in err
    assert told in err


WRONG = """\
from pydantic import BaseModel
from headstart_service.sdk import Pipeline, RayOptions, step
class Text(BaseModel):
    text: str
@step
async def bare(text: str, embeder: object) -> int:
    return 1
@step
def bare_and_plain(text: str) -> int:
    return 1
@step(runs_on="nowhere", timeout=-1)
async def lost(text: str) -> int:
    return 1
@step(runs_on="process", ray=RayOptions())
async def waiting(text: str) -> int:
    return 1
@step(runs_on="thread")
async def streaming(text: str):
    yield "a"
@step(runs_on="process")
def many(
    text: str,
    *others: str,
) -> int:
    return 1
@step()
async def last(lots: int) -> int:
    return 1
ALL = (bare, bare_and_plain, lost, waiting, streaming, many, last)
TEXT = Pipeline("text", "1", "Counts words", Text, ALL)
"""


def test_wrong_functions_and_places_are_reported_with_all_other_mistakes(module, capsys) -> None:
    module(WRONG)
    code, out, err = check(capsys, "authors:TEXT")
    assert code == exit_codes.FAILED
    assert "last" in out
    expected = [
        "authors.py:6: step bare: @step needs parentheses: write @step()",
        "authors.py:9: step bare_and_plain: @step needs parentheses: write @step()",
        "authors.py:9: step bare_and_plain must be an async function, or have runs_on='thread'",
        "authors.py:12: step lost: runs_on must be one of loop, thread, process, ray, is",
        "authors.py:12: step lost: timeout must be more than 0 seconds, is -1",
        "authors.py:15: step waiting: ray=RayOptions(…) needs runs_on='ray', is 'process'",
        "authors.py:15: step waiting must be a plain function to have runs_on='process'",
        "authors.py:18: step streaming streams, as an async generator: it must have runs_on",
        "authors.py:23: step many: parameter others must have a plain name",
        "authors.py:18: step streaming, return type: an async generator is annotated",
        "authors.py:6: step bare: parameter embeder is no input, step or provider",
        "authors.py:27: step last: parameter lots is no input, step or provider",
    ]
    lines = err.splitlines()
    for line, text in zip(lines, expected, strict=True):
        assert line.startswith(text)


def test_all_options_out_of_their_range_are_reported(module, capsys) -> None:
    text = GOOD.replace("@step(required=True)", "@step(settle=90, ttl=5)")
    module(text.replace("@step()", "@step(max_bytes=0)"))
    code, _, err = check(capsys, "authors:TEXT")
    assert code == exit_codes.FAILED
    found = [line.split(" must")[0].split(" needs")[0] for line in err.splitlines()]
    assert found == [
        "authors.py:6: step words: settle",
        "authors.py:6: step words: ttl",
        "authors.py:9: step count: max_bytes",
    ]


def test_a_module_that_is_not_there_gets_a_hint(module, capsys) -> None:
    code, _, err = check(capsys, "nowhere:X")
    assert code == exit_codes.FAILED
    assert err == (
        "nowhere:X: cannot load nowhere:X: No module named 'nowhere' (is its directory on "
        "PYTHONPATH?)\n"
    )


def test_distributions_are_checked_by_name_or_all_together(module, tmp_path, capsys) -> None:
    module(GOOD)
    module(GOOD.replace('"text"', '"other"'), "others")
    module(GOOD, "again")
    distribution(tmp_path, "shop-texts", "one = authors:TEXT")
    distribution(tmp_path, "shop-others", "two = others:TEXT")
    code, out, err = check(capsys, "Shop_Texts", "--json")
    assert (code, err) == (exit_codes.DONE, "")
    assert [each["name"] for each in json.loads(out)["pipelines"]] == ["text"]
    code, out, _ = check(capsys, "--json")
    assert code == exit_codes.DONE
    assert [each["name"] for each in json.loads(out)["pipelines"]] == ["text", "other"]
    distribution(tmp_path, "third", "zzz = again:TEXT", "zzzz = gone:X")
    code, out, err = check(capsys)
    assert code == exit_codes.FAILED
    assert (
        "again.py:11: two pipelines are named text: the first is declared at authors.py:11" in err
    )
    assert "distribution third 2.1, entry point zzzz of headstart.pipelines" in err


def test_pipelines_of_the_setting_are_checked_with_the_installed_ones(
    module, tmp_path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    module(GOOD.replace("embedder", "zzz"))
    module(GOOD.replace('"text"', '"other"'), "others")
    distribution(tmp_path, "shop-texts", "one = authors:TEXT")
    monkeypatch.setenv("HEADSTART_PIPELINES", "authors:TEXT, others:TEXT,")
    code, out, err = check(capsys, "--json")
    assert (code, err) == (exit_codes.FAILED, "")
    found = json.loads(out)
    assert [each["name"] for each in found["pipelines"]] == ["text", "other"]
    assert [each["where"] for each in found["mistakes"]] == ["authors.py:9"]


def test_a_function_without_the_decorator_is_reported_at_its_line(module, capsys) -> None:
    module(GOOD.replace("@step()\n", ""))
    code, out, err = check(capsys, "authors:TEXT")
    assert code == exit_codes.FAILED
    assert out.splitlines()[-1] == "text: words"
    assert err == (
        "authors.py:8: pipeline text: count is no step: decorate the function with @step()\n"
    )


def test_a_distribution_that_offers_none_is_a_wrong_argument(capsys) -> None:
    code, out, err = check(capsys, "pytest")
    assert (code, out) == (exit_codes.WRONG_ARGUMENTS, "")
    assert (
        err
        == "headstart: pytest is no MODULE:NAME, and no installed distribution that offers any\n"
    )


def test_bridging_itself_passes(capsys) -> None:
    code, out, err = check(capsys, "headstart_service.pipelines.bridging:BRIDGING")
    assert (code, err) == (exit_codes.DONE, "")
    assert out.splitlines()[-1] == (
        "bridging: embed_endpoints -> lexical_bridge, null_samples; haiku_bridge -> haiku_embeddings"
    )


def test_a_graph_names_every_step() -> None:
    needs = {"a": (), "e": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}
    assert graph(needs) == "a -> b, c; b, c -> d; e"


def test_providers_of_authors_are_checked_with_the_pipelines_that_take_them(
    module, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    taker = GOOD.replace("embedder", "shelf")
    module(taker + "\n\nasync def shelf():\n    yield 1\n")
    code, _, err = check(capsys, "authors:TEXT")
    assert code == exit_codes.FAILED
    assert "parameter shelf is no input, step or provider of pipeline text" in err
    monkeypatch.setenv("HEADSTART_PROVIDERS", "authors:shelf")
    line = len(taker.splitlines()) + 3
    code, _, err = check(capsys, "authors:TEXT")
    assert code == exit_codes.FAILED
    assert err.startswith(f"authors.py:{line}: provider shelf (HEADSTART_PROVIDERS: authors:shelf)")
    monkeypatch.setenv("HEADSTART_PROVIDERS", "shelf=contextlib:AsyncExitStack")
    code, out, err = check(capsys, "authors:TEXT")
    assert (code, err) == (exit_codes.DONE, "")
    assert " shelf " in out
    monkeypatch.setenv("HEADSTART_PROVIDERS", "http=authors:shelf")
    code, _, err = check(capsys, "authors:TEXT")
    assert code == exit_codes.FAILED
    assert "HEADSTART_PROVIDERS: authors:shelf cannot be named http" in err
