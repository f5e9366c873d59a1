"""A pipeline for a user who edits: two steps of the anchor alone, two of the target alone, one of both.

Each step leaves lines in the file `EDITING_LOG`, so that tests can count what was computed, in which
process it ever was. While the file `EDITING_GATE` exists, no step ends.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

from pydantic import BaseModel

from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import Step, step
from headstart_service.values.artifacts import ArtifactCodec


class Edited(BaseModel):
    anchor: str
    target: str


def _say(event: str, name: str, about: str) -> None:
    with Path(os.environ["EDITING_LOG"]).open("a") as file:
        file.write(f"{event} {name} {about}\n")


def _is_closed() -> bool:
    return Path(os.environ["EDITING_GATE"]).exists()


async def _work(name: str, about: str) -> None:
    _say("began", name, about)
    try:
        while _is_closed():  # noqa: ASYNC110  # another process opens it
            await asyncio.sleep(0.002)
    except asyncio.CancelledError:
        _say("stopped", name, about)
        raise
    _say("ended", name, about)


def _steps(*, memo: bool) -> tuple[Step, ...]:
    @step(required=True, timeout=120, memo=memo)
    async def read_anchor(anchor: str) -> str:
        await _work("read_anchor", anchor)
        return f"<{anchor}>"

    @step(required=True, timeout=120, memo=memo)
    async def near_anchor(read_anchor: str) -> str:
        await _work("near_anchor", read_anchor)
        return f"near {read_anchor}"

    @step(required=True, timeout=120, memo=memo)
    async def read_target(target: str) -> str:
        await _work("read_target", target)
        return f"<{target}>"

    @step(required=True, timeout=120, memo=memo)
    async def near_target(read_target: str) -> str:
        await _work("near_target", read_target)
        return f"near {read_target}"

    @step(required=True, timeout=120, memo=memo)
    async def bridge(near_anchor: str, near_target: str) -> str:
        await _work("bridge", f"{near_anchor}|{near_target}")
        return f"{near_anchor} and {near_target}"

    return read_anchor, near_anchor, read_target, near_target, bridge


EDITING, MEMOISED = (
    Pipeline(
        name=name,
        version="1",
        description="Counts what an edit costs",
        inputs=Edited,
        steps=_steps(memo=memo),
        codec=ArtifactCodec(),
    )
    for name, memo in (("editing", False), ("memoised", True))
)
REFERENCES = "tests.support.editing:EDITING,tests.support.editing:MEMOISED"
"""What HEADSTART_PIPELINES must be."""


def bridge_of(anchor: str, target: str) -> str:
    """The value of the last step."""
    return f"near <{anchor}> and near <{target}>"


class Work:
    """What processes with this environment have computed."""

    def __init__(self, directory: Path) -> None:
        self._log, self._gate = directory / "log", directory / "gate"
        self.environment = {"EDITING_LOG": str(self._log), "EDITING_GATE": str(self._gate)}

    def close_gate(self) -> None:
        """Let no step end."""
        self._gate.touch()

    def open_gate(self) -> None:
        """Let steps end."""
        self._gate.unlink(missing_ok=True)

    def forget(self) -> None:
        """Count from here on."""
        self._log.unlink(missing_ok=True)

    def lines(self, event: str) -> list[str]:
        """What began, ended or was stopped: "name about", in order."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{event} ")]

    def count(self, event: str) -> Counter[str]:
        """How often that happened to each step."""
        return Counter(line.split(" ", 1)[0] for line in self.lines(event))
