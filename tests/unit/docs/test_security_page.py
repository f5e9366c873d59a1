"""docs/promises.md and the rights of docs/security.md; and what no process of ours may do."""

from __future__ import annotations

import ast
import re
import unicodedata
from pathlib import Path

import pytest

from tests.support.deployments import least_rights

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "security.md").read_text()
PROMISES = (ROOT / "docs" / "promises.md").read_text()
DANGEROUS_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle"}
DANGEROUS_CALLS = {"eval", "exec", "compile", "__import__"}
WORDS = (*DANGEROUS_MODULES, *DANGEROUS_CALLS, "allow_pickle")


def test_every_promise_is_made_once_with_its_mechanism() -> None:
    rows = [line for line in PROMISES.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert len(cells) > 50
    assert all(all(each) for each in cells)
    for column in (0, 2):
        found = [each[column] for each in cells]
        assert len(found) == len(set(found))


def test_the_rights_in_redis_are_those_that_the_tests_run_with_and_the_log_gives() -> None:
    [rule] = re.findall(r"^ACL SETUSER headstart on >PASSWORD (.*)$", PAGE, re.MULTILINE)
    assert rule.split() == least_rights("headstart")
    pages = (ROOT / "docs").rglob("*.md")
    assert [page.name for page in pages if "ACL SETUSER headstart" in page.read_text()] == [
        "security.md"
    ]


TRUSTED = {
    # The text of an annotation in a module that was imported, and so executed, already.
    "values/annotations.py": {"eval"},
    # Between a worker and the child that it has started, over a pair of sockets of theirs alone.
    "worker/executors/child.py": {"pickle"},
    "worker/executors/child_socket.py": {"pickle"},
    "worker/executors/processes.py": {"pickle"},
    "worker/executors/remote_call.py": {"pickle"},
    # From nodes of a Ray cluster, which runs what the worker sends and is trusted as the worker is.
    "worker/executors/ray_cluster.py": {"pickle"},
    "worker/executors/ray_driver.py": {"pickle"},
}


@pytest.mark.promise("Nothing from Redis is unpickled or executed", "protobuf, JSON, text")
def test_nothing_unpickles_or_evaluates_what_comes_from_outside() -> None:
    for package in ("service/headstart_service", "client/headstart"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            # Python reads names in this form, too: most modules have none of these words at all.
            if not any(word in unicodedata.normalize("NFKC", text) for word in WORDS):
                continue
            trusted = TRUSTED.get("/".join(path.relative_to(ROOT / package).parts), set())
            for node in ast.walk(ast.parse(text)):
                assert not _dangers(node) - trusted, f"{path}:{getattr(node, 'lineno', 0)}"


def _dangers(node: ast.AST) -> set[str]:
    match node:
        case ast.Import(names=names):
            return {each.name.partition(".")[0] for each in names} & DANGEROUS_MODULES
        case ast.ImportFrom(module=str(module)):
            return {module.partition(".")[0]} & DANGEROUS_MODULES
        case ast.Call(func=ast.Name(id=name)):
            return {name} & DANGEROUS_CALLS
        case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
            return {"allow_pickle"}
    return set()
