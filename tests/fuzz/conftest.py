from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fuzz import budget
from tests.fuzz.victim import Victim


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    """A server, a worker and a Valkey of their own, which must live through all of a module."""
    with Victim.running() as running:
        yield running


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Pass what a process of xdist has run to the one that counts."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["fuzzed"] = dict(budget.ran)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    budget.ran.update(getattr(node, "workeroutput", {}).get("fuzzed", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if budget.ran:
        each = ", ".join(f"{number:,} {target}" for target, number in sorted(budget.ran.items()))
        total = sum(budget.ran.values())
        terminalreporter.write_line(f"fuzzed {total:,} cases, seed {budget.SEED}: {each}")
