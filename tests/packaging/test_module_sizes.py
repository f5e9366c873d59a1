"""Modules stay small enough to read: 400 lines in the product, 600 in tests."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST = {"client": 400, "service": 400, "deploy": 400, "benchmarks": 400, "examples": 400}
MOST |= {"tests": 600}
GENERATED = ROOT / "client" / "headstart" / "v1"


@pytest.mark.parametrize("folder", MOST)
def test_no_module_has_more_lines_than_a_reader_keeps_in_mind(folder: str) -> None:
    modules = [
        path
        for kind in ("*.py", "*.lua")
        for path in (ROOT / folder).rglob(kind)
        if GENERATED not in path.parents and "node_modules" not in path.parts
    ]
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in modules
    }
    assert lines
    assert {name: count for name, count in lines.items() if count > MOST[folder]} == {}
