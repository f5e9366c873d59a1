"""Steps for Ray, some of which do harm."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pydantic import BaseModel

from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.ray_options import RayOptions
from headstart_service.pipeline.step import step
from tests.support.ledger import pipeline_of


class Directory(BaseModel):
    directory: str
    """Where steps leave their process's id, and look for `go`."""


class Counter:
    """A model, as far as Ray knows: its state lives as long as its actor."""

    def __init__(self) -> None:
        self.calls = 0


@step(runs_on="ray")
def own_pid() -> int:
    end = time.process_time() + 0.05
    while time.process_time() < end:
        sum(range(1000))
    return os.getpid()


@step(runs_on="ray", timeout=3.0)
def hangs(directory: str) -> int:
    (Path(directory) / "hangs").write_text(f"{os.getpid()}")
    time.sleep(3600)
    return 1


@step(runs_on="ray", timeout=60.0)
def held(directory: str) -> int:
    (Path(directory) / "held").write_text(f"{os.getpid()}")
    while not (Path(directory) / "go").exists():
        time.sleep(0.02)
    return 1


@step(runs_on="ray", max_attempts=2, backoff=0.0)
def dies(directory: str) -> int:
    with (Path(directory) / "deaths").open("a") as file:
        file.write("x")
    os._exit(9)


@step(runs_on="ray")
def raises() -> None:
    raise ValueError("password=hunter2")


@step(runs_on="ray")
def refuses() -> None:
    raise StepFailed("no such word", retry=False)


@step(
    runs_on="ray",
    timeout=60.0,
    ray=RayOptions(
        num_cpus=0.5, resources={"shelf": 2}, runtime_env={"env_vars": {"COLOUR": "green"}}
    ),
)
def environment() -> dict[str, str]:
    import ray

    had = ray.get_runtime_context().get_assigned_resources()
    return {"colour": os.environ.get("COLOUR", ""), **{n: f"{had[n]:g}" for n in sorted(had)}}


_COUNTED = RayOptions(num_cpus=0.1, actor=Counter)


@step(runs_on="ray", timeout=60.0, ray=_COUNTED)
def counts(actor: Counter) -> list[int]:
    actor.calls += 1
    return [os.getpid(), actor.calls]


@step(runs_on="ray", timeout=60.0, ray=_COUNTED)
def breaks(actor: Counter) -> int:
    os._exit(9)


@step()
async def beside() -> int:
    return 1


RAY = pipeline_of(own_pid, raises, refuses, name="ray")
HARM = pipeline_of(hangs, dies, name="harm", inputs=Directory)
HELD: Pipeline = pipeline_of(held, name="held", inputs=Directory)
BESIDE = pipeline_of(beside, name="beside")
OPTIONS = pipeline_of(environment, counts, breaks, name="options")
REFERENCES = ",".join(f"{__name__}:{name}" for name in ("RAY", "HELD", "BESIDE"))
