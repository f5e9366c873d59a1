"""Steps that do harm, one for each place that a step can run in."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from headstart_service.values.artifacts import ArtifactCodec


class HarmInputs(BaseModel):
    directory: str
    """Where steps leave their process's id, and look for `go`."""


def gone(directory: str) -> bool:
    return (Path(directory) / "go").exists()


def burn(seconds: float) -> float:
    until = time.process_time() + seconds
    while time.process_time() < until:
        sum(range(1000))
    return seconds


@step()
async def blocks(directory: str) -> int:
    while not gone(directory):
        pass
    return 1


@step(timeout=0.3, runs_on="thread")
def never_ends(directory: str) -> int:
    while not gone(directory):
        time.sleep(0.01)
    return 1


@step(timeout=0.3)
async def never_returns(directory: str) -> int:
    """Ends, while the thread that it has asked for goes on."""
    await asyncio.to_thread(_wait_to_go, directory)
    return 1


def _wait_to_go(directory: str) -> None:
    while not gone(directory):
        time.sleep(0.05)


@step(runs_on="process", max_attempts=2, backoff=0)
def dies(directory: str) -> int:
    with (Path(directory) / "deaths").open("a") as file:
        file.write(f"{os.getpid()}\n")
    os.kill(os.getpid(), signal.SIGKILL)
    return 1


@step(runs_on="process")
def leaves() -> int:
    os._exit(3)


@step(runs_on="process", timeout=60)
def forks(directory: str) -> int:
    """Ends, while a process that it has started keeps what it has opened."""
    if not (pid := os.fork()):
        os.setsid()
        time.sleep(60)
        os._exit(0)
    (Path(directory) / "grandchild").write_text(f"{pid}")
    while os.getsid(pid) != pid:  # or it ends with this process's group
        time.sleep(0.01)
    os._exit(4)


@step()
async def quits() -> int:
    sys.exit(0)


@step(timeout=20)
async def quits_in_task() -> int:
    async def leave() -> int:
        sys.exit(0)

    return await asyncio.create_task(leave())


@step()
async def quits_in_callback() -> int:
    asyncio.get_running_loop().call_soon(sys.exit, 0)
    await asyncio.sleep(0.05)
    return 1


@step(runs_on="thread")
def quits_in_thread() -> int:
    sys.exit(0)


@step(runs_on="process")
def quits_in_process() -> int:
    sys.exit(0)


@step()
async def wordy() -> int:
    raise StepFailed("\ud800" + "x" * 4_000_000, retry=False)


@step(runs_on="process", timeout=0.5)
def hangs(directory: str) -> int:
    (Path(directory) / "hangs").write_text(f"{os.getpid()}")
    while not gone(directory):
        time.sleep(0.01)
    return 1


@step(runs_on="process", timeout=60)
def starts(directory: str) -> int:
    """Waits for a process that it has started."""
    child = subprocess.Popen(["sleep", "60"])
    (Path(directory) / "starts").write_text(f"{child.pid}")
    return child.wait()


@step(runs_on="process", timeout=60)
def held(directory: str) -> int:
    (Path(directory) / "held").write_text(f"{os.getpid()}")
    while not gone(directory):
        time.sleep(0.01)
    return 1


@step(runs_on="process")
def raises() -> int:
    raise ValueError("password=hunter2")


@step(runs_on="process")
def refuses() -> int:
    raise StepFailed("no such word", retry=False)


@step(runs_on="process")
def unsendable() -> Any:
    return lambda: 1


@step(runs_on="process")
def prints() -> int:
    print("x" * 3_000_000)
    return 1


@step(runs_on="thread")
def prints_too() -> int:
    print("y" * 3_000_000)
    return 1


@step(runs_on="process")
def tells(directory: str) -> int:
    burn(0.05)
    return os.getpid()


@step(runs_on="thread")
def threaded(directory: str) -> float:
    return burn(0.05)


@step(runs_on="thread", timeout=1.4)
def naps() -> int:
    """Three, one after the other, take longer than one may."""
    time.sleep(0.5)
    return 1


@step(runs_on="process", timeout=1.4)
def naps_apart() -> int:
    time.sleep(0.5)
    return 1


@step()
async def looped(directory: str) -> float:
    await asyncio.sleep(0)
    return burn(0.05)


@step()
async def asks_thread() -> float:
    return await asyncio.to_thread(burn, 0.01)


class HangInputs(HarmInputs):
    kind: str
    """How the event loop is made to stand still."""
    times: int
    """In how many tries of the run."""


async def _ready() -> int:
    return 1


def _spin() -> None:
    while True:
        pass


def _keep_interpreter() -> None:
    """Hold Python's interpreter lock in C: the regular expression needs years."""
    re.match("(a+)+$", "a" * 64 + "b")


@step(timeout=60, required=True)
async def stands_still(directory: str, kind: str, times: int) -> int:
    with (Path(directory) / f"tries-{kind}").open("a+") as file:
        file.write(f"{os.getpid()}\n")
        file.seek(0)
        if len(file.readlines()) > times:
            return 1
    loop = asyncio.get_running_loop()
    match kind:
        case "event":
            threading.Event().wait()
        case "result":
            asyncio.run_coroutine_threadsafe(_ready(), loop).result()
        case "callback":
            loop.call_soon(_spin)
            await asyncio.sleep(60)
        case "task":
            await asyncio.create_task(_spin_on_loop())
        case "busy":  # the loop is never idle, and stands still for nobody
            while True:  # noqa: ASYNC110  # it must be busy
                await asyncio.sleep(0)
        case "thread":  # the loop goes on, and the thread cannot be stopped
            await asyncio.to_thread(_spin)
        case "lock":
            await asyncio.to_thread(_keep_interpreter)
    return 0


async def _spin_on_loop() -> None:
    _spin()


def _pipeline(name: str, *steps: Any) -> Pipeline:
    return Pipeline(
        name=name,
        version="1",
        description="Does harm, or stands beside it",
        inputs=HarmInputs,
        steps=steps,
        codec=ArtifactCodec(),
    )


HARM = _pipeline(
    "harm",
    *(blocks, never_ends, dies, leaves, forks, hangs, raises, refuses, unsendable, prints),
    *(prints_too, quits, quits_in_task, quits_in_callback, quits_in_thread, quits_in_process),
    wordy,
)
LOOSE = _pipeline("loose", never_returns)
BESIDE = _pipeline("beside", tells, threaded, looped, asks_thread)
HELD = _pipeline("held", held)
HANG = Pipeline(
    name="hang",
    version="1",
    description="Makes its worker's event loop stand still",
    inputs=HangInputs,
    steps=(stands_still,),
    codec=ArtifactCodec(),
)
_NAMES = ("HARM", "LOOSE", "BESIDE", "HELD", "HANG")
REFERENCES = ",".join(f"tests.support.places:{name}" for name in _NAMES)
