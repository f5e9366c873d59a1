"""A package of an author's, with providers of every kind and a pipeline that takes one."""

from __future__ import annotations

from pathlib import Path

KEY = "sk-s3cret-of-the-shelf"

PROVIDERS = """
import asyncio, contextlib, os, time
from pathlib import Path
from pydantic import BaseModel, Field, SecretStr

FOLDER = Path(os.environ["STOCK_FOLDER"])

def note(what):
    with (FOLDER / "events").open("a") as file:
        file.write(f"{os.getpid()} {what}\\n")

class Settings(BaseModel):
    place: str
    key: SecretStr
    size: int = Field(3, ge=1, le=9)

class Shelf:
    def __init__(self, settings):
        self.settings = settings
    @property
    def identity(self):
        return f"shelf-{self.settings.place}"
    async def warm(self):
        note("warm")
    async def health(self):
        return (FOLDER / "ill").read_text() if (FOLDER / "ill").exists() else None
    def count(self, item):
        return f"{item}@{self.settings.place}*{self.settings.size} by {os.getpid()}"

@contextlib.asynccontextmanager
async def shelf(settings: Settings):
    assert settings.key.get_secret_value() == "sk-s3cret-of-the-shelf"
    note("open")
    yield Shelf(settings)
    note("closed")

class Failing:
    def __init__(self, settings: Settings):
        self.key = settings.key.get_secret_value()
    async def __aenter__(self):
        raise ConnectionError(f"no stock for {self.key}")
    async def __aexit__(self, *_): ...

@contextlib.asynccontextmanager
async def slow():
    await asyncio.sleep(600)
    yield

@contextlib.asynccontextmanager
async def blocking():
    time.sleep(600)
    yield

@contextlib.asynccontextmanager
async def stuck():
    yield object()
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)

async def bare():
    yield 1

@contextlib.asynccontextmanager
async def greedy(one, two):
    yield 1
"""

PIPELINE = """
from collections.abc import AsyncIterator
from pydantic import BaseModel
from headstart_service.sdk import Pipeline, step

class Inputs(BaseModel):
    item: str

@step(required=True)
async def on_loop(item: str, shelf) -> str:
    return shelf.count(item)

@step(required=True, runs_on="thread")
def in_thread(item: str, shelf) -> str:
    return shelf.count(item)

@step(required=True, runs_on="process")
def in_process(item: str, shelf) -> str:
    return shelf.count(item)

PIPELINE = Pipeline("stock", "1", "", Inputs, (on_loop, in_thread, in_process))

@step(required=True, pool="gpu")
async def far(item: str, shelf) -> AsyncIterator[str]:
    yield shelf.count(item)

@step(required=True)
async def near(far: str) -> str:
    return "near " + far

POOLED = Pipeline("pooled", "1", "", Inputs, (far, near))

@step()
async def only(shelf) -> int:
    return 1

class Nothing(BaseModel): ...

TAKER = Pipeline("taker", "1", "", Nothing, (only,))
"""


def written(folder: Path, *entry_points: str) -> dict[str, str]:
    """Write the package, with these entry points for providers; return a process's environment."""
    (folder / "stock_providers.py").write_text(PROVIDERS)
    (folder / "stock.py").write_text(PIPELINE)
    if entry_points:
        info = folder / "stock-2.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stock\nVersion: 2.1\n")
        lines = "\n".join(entry_points)
        (info / "entry_points.txt").write_text(f"[headstart.providers]\n{lines}\n")
    return {
        "PYTHONPATH": str(folder),
        "STOCK_FOLDER": str(folder),
        "HEADSTART_BRIDGING": "false",
        "HEADSTART_PIPELINES": "stock:PIPELINE",
    }
