"""docs/security.md promises nothing that no test shows; and what no process of ours may do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.support.deployments import least_rights

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "security.md").read_text()
DANGEROUS_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle"}
DANGEROUS_CALLS = {"eval", "exec", "compile", "__import__"}


def rows() -> list[list[str]]:
    """The cells of each row of the table of promises."""
    table = PAGE.split("| promise | how it is kept | shown by |")[1].split("\n\n")[0]
    lines = table.strip().splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_promise_names_a_test_that_exists() -> None:
    found = rows()
    assert len(found) > 25
    for promise, kept, shown in found:
        assert promise
        assert kept
        named = re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", shown)
        assert named, shown
        tree = ast.parse((ROOT / named[1]).read_text())
        functions = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert named[2] in functions, shown


def test_no_promise_is_shown_by_another_ones_test() -> None:
    shown = [row[2] for row in rows()]
    assert len(shown) == len(set(shown))


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


def test_nothing_unpickles_or_evaluates_what_comes_from_outside() -> None:
    for package in ("service/headstart_service", "client/headstart"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                trusted = TRUSTED.get("/".join(path.relative_to(ROOT / package).parts), set())
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
