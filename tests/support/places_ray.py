"""Steps for Ray, some of which do harm."""

from __future__ import annotations

import os
import time
from pathlib import Path

from headstart_service.engine.step import step
from headstart_service.errors import StepFailed
from tests.support.ledger import pipeline_of


@step(runs_on="ray")
def tells() -> int:
    end = time.process_time() + 0.05
    while time.process_time() < end:
        sum(range(1000))
    return os.getpid()


@step(runs_on="ray")
def hangs(directory: str) -> None:
    (Path(directory) / "hangs").write_text(f"{os.getpid()}")
    time.sleep(3600)


@step(runs_on="ray")
def dies(directory: str) -> None:
    with (Path(directory) / "deaths").open("a") as file:
        file.write("x")
    os._exit(9)


@step(runs_on="ray")
def raises() -> None:
    raise ValueError("password=hunter2")


@step(runs_on="ray")
def refuses() -> None:
    raise StepFailed("no such word", retry=False)


RAY = pipeline_of(tells, raises, refuses)
