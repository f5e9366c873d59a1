"""A pipeline whose runs keep their slot until a file appears."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import BaseModel

from headstart_service.sdk import Pipeline, step

REFERENCE = "tests.support.occupying_pipelines:OCCUPYING"
"""What HEADSTART_PIPELINES must have."""


class Inputs(BaseModel):
    directory: str
    """Where the step looks for `go`."""


@step(required=True, runs_on="thread", timeout=120)
def occupied(directory: str) -> int:
    while not (Path(directory) / "go").exists():
        time.sleep(0.005)
    return 1


OCCUPYING = Pipeline("occupying", "1", "Keeps a slot", Inputs, (occupied,))
