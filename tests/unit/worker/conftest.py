"""The clock of runs, which tests set."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from headstart_service.worker import run as run_module
from headstart_service.worker import step_run
from tests.support.virtual_time import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of runs and steps."""
    made = Clock()
    module = SimpleNamespace(monotonic=made, time_ns=lambda: round(made.now * 1e9))
    monkeypatch.setattr(run_module, "time", module)
    monkeypatch.setattr(step_run, "time", module)
    return made
