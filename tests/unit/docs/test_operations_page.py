"""docs/operations.md has every error code, and no drill that no test does."""

from __future__ import annotations

import ast
import re

import pytest

from headstart_service.config.settings import Settings, variable
from tests.support.processes import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()
CONTRACT = (ROOT / "protos" / "headstart" / "v1" / "precompute.proto").read_text()
DRILLS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def test_every_code_of_the_contract_has_a_cause_and_a_cure():
    codes = set(re.findall(r"^//   ([A-Z_]{5,})  ", CONTRACT, re.MULTILINE))
    assert len(codes) > 8
    rows = PAGE.split("## Error codes")[1].split("\n## ")[0].splitlines()
    told = {row.split("`")[1] for row in rows if row.startswith("| `")}
    assert codes <= told, codes - told
    for row in rows:
        if row.startswith("| `"):
            assert all(cell.strip() for cell in row.strip("|").split("|")), row


def test_every_drill_is_a_test():
    rows = PAGE.split("## Drills")[1].strip().splitlines()
    table = [row for row in rows if row.startswith("| ")][1:]
    assert len(table) == len(DRILLS) >= 8


@pytest.mark.parametrize(("path", "name"), DRILLS)
def test_the_drills_test_exists(path: str, name: str):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, functions)}


def test_every_setting_that_the_page_names_exists():
    known = {variable(name) for name in Settings.model_fields}
    assert set(re.findall(r"`(HEADSTART_[A-Z_]+)", PAGE)) <= known


def test_every_text_of_the_log_that_the_page_quotes_is_in_the_code():
    paths = [*ROOT.glob("service/**/*.py"), *ROOT.glob("service/**/*.lua")]
    code = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text() for path in paths))
    checks = "\n".join(re.findall(r"\*\*(?:Check|Fix)\.\*\*.*(?:\n  .*)*", PAGE))
    quoted = re.findall(r"`([a-z][a-z ,…]+ [a-z …]+:?|[a-z ]+:)`", checks)
    assert len(quoted) >= 10, quoted
    for text in quoted:
        assert all(part.strip() in code for part in text.split("…")), text


def test_every_link_to_the_page_itself_has_its_heading():
    headings = {line.lstrip("# ").lower() for line in PAGE.splitlines() if line.startswith("#")}
    anchors = {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors
