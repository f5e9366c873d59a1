"""pyright and tsc accept generated modules, and refuse code with a wrong input, step or field."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.languages.tools import install_node_packages, node, node_environment
from tests.support import schema_pipelines, typed_pipelines
from tests.support.commands import run
from tests.support.generated_modules import (
    PYTHON_RIGHT,
    PYTHON_WRONG,
    PYTHON_WRONG_LINES,
    TYPESCRIPT_CLIENT,
    TYPESCRIPT_RIGHT,
    TYPESCRIPT_WRONG,
    TYPESCRIPT_WRONG_LINES,
)

pytestmark = pytest.mark.languages

CHECKERS = Path(__file__).with_name("typed")
PIPELINES = (f"{typed_pipelines.__name__}:TYPED", *schema_pipelines.REFERENCES)


@pytest.fixture(scope="module")
def checkers() -> Path:
    install_node_packages(CHECKERS)
    return CHECKERS / "node_modules" / ".bin"


def generated(path: Path, *options: str) -> None:
    packages = [part for each in PIPELINES for part in ("--from", each)]
    done = run("pipelines", "generate", *options, *packages, "--out", str(path))
    assert done == (0, "", "")


def checked(directory: Path, *command: str) -> str:
    """What a checker prints."""
    done = subprocess.run(
        [node(), *command],
        cwd=directory,
        env=node_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert not done.stderr
    return done.stdout


def test_pyright_accepts_right_code_alone(checkers: Path, tmp_path: Path) -> None:
    generated(tmp_path / "pipelines.py", "--python")
    generated(tmp_path / "blocking_pipelines.py", "--python", "--blocking")
    (tmp_path / "right.py").write_text(PYTHON_RIGHT)
    (tmp_path / "wrong.py").write_text(PYTHON_WRONG)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    report = json.loads(
        checked(
            tmp_path,
            str(checkers / "pyright"),
            "--outputjson",
            f"--pythonpath={sys.executable}",
            "--project=.",
        )
    )
    errors = {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1)
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    }
    assert sorted(errors) == [("wrong.py", line) for line in PYTHON_WRONG_LINES]


def test_tsc_accepts_right_code_alone(checkers: Path, tmp_path: Path) -> None:
    generated(tmp_path / "pipelines.ts", "--typescript")
    for name, text in {
        "client.ts": TYPESCRIPT_CLIENT,
        "right.ts": TYPESCRIPT_RIGHT,
        "wrong.ts": TYPESCRIPT_WRONG,
    }.items():
        (tmp_path / name).write_text(text)
    out = checked(
        tmp_path,
        str(checkers / "tsc"),
        *("--strict", "--noEmit", "--exactOptionalPropertyTypes", "--pretty", "false"),
        *("--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom"),
        *("right.ts", "wrong.ts"),
    )
    errors = re.findall(r"^([\w.]+)\((\d+),\d+\): error ", out, re.MULTILINE)
    assert sorted({(file, int(line)) for file, line in errors}) == [
        ("wrong.ts", line) for line in TYPESCRIPT_WRONG_LINES
    ], out
