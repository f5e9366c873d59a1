"""Measures what a user who edits costs: twenty revisions, typed at the pace of a person.

The anchor of a run is typed letter by letter, with four letters taken back and typed again; every
key starts the run anew. Of its five steps two need the anchor alone, two the target alone, and one
both. Three ways to do it take turns on one worker:

  reuse and memos   one key: steps that get the same are kept, taken over or remembered
  restart           one key, each start with `restart`: stale runs are stopped, nothing is reused
  a key each        each revision under a key and target of its own: no run is stopped, nor reused

A pipeline of one paid call of 1.2 s is typed in the same way, with `settle=0.6` and without. The
caller waits from the last key on, or comes when the call has had its time.

Exit codes are those of `python -m benchmarks`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from headstart import PrecomputeClient

from .harness import Bench, Figure
from .processes import Process, start_api, start_worker
from .program import run
from .results import Line, Series, at_most

TYPED = "castle ruins"
TRACE = (
    *(TYPED[:length] for length in range(1, 13)),
    *(TYPED[:length] for length in (11, 10, 9, 8)),
    *(TYPED[:length] for length in (9, 10, 11, 12)),
)
"""The anchor after each of twenty keys."""
_PAUSE, _SPREAD = 0.18, 0.5
"""Between two keys: the median in seconds, and the standard deviation of its logarithm."""
_WAIT = 60.0
REUSE, RESTART, APART = "reuse and memos", "restart", "a key each"
SETTLED, EAGER = "settle=0.6", "no settle"
_PIPELINES = {SETTLED: "settled", EAGER: "eager"}


@dataclass(frozen=True)
class Cost:
    """What one trace has cost."""

    cpu: float
    """Seconds of the worker's processor."""
    steps: float
    """How many were begun."""
    wait: float
    """Milliseconds from the last key to its result."""


class Typist:
    """Types the trace in one of the ways. No two of its games have anything in common."""

    def __init__(self, client: PrecomputeClient, worker: Process, log: Path) -> None:
        self._client = client
        self._worker = worker
        self._log = log
        self._numbers = count()

    async def type(self, way: str, pauses: Sequence[float]) -> Cost:
        """Type with these pauses before each key; return when everything begun has ended."""
        game = f"game-{next(self._numbers)}"
        self._log.write_text("")
        cpu = self._worker.used_seconds()
        for number, (anchor, pause) in enumerate(zip(TRACE, pauses, strict=True)):
            await asyncio.sleep(pause)
            pressed = time.monotonic()
            own = f"{game}-{number}" if way == APART else game
            inputs = {"anchor": f"{own} {anchor}", "target": own}
            started = await self._client.start(
                own, _PIPELINES.get(way, "editing"), inputs, restart=way == RESTART
            )
        await self._client.get_results(own, wait=_WAIT, min_revision=started.revision)
        waited = time.monotonic() - pressed
        # The runs of other keys are not cancelled.
        while (await self._client.get_stats()).active_tasks:  # noqa: ASYNC110  # elsewhere
            await asyncio.sleep(0.02)
        steps = len(self._log.read_text().splitlines())
        return Cost(self._worker.used_seconds() - cpu, steps, waited * 1000)


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    log = bench.work / "steps"
    os.environ["EDITING_LOG"] = str(log)  # the worker's environment is made of this one
    settings = {
        "BRIDGING": "false",
        "PIPELINES": ",".join(f"benchmarks.pipelines:{n}" for n in ("EDITING", "EAGER", "SETTLED")),
    }
    _, address = await start_api(bench, url, **settings)
    worker = await start_worker(bench, url, **settings)
    client = await bench.stack.enter_async_context(PrecomputeClient(address))
    typist = Typist(client, worker, log)
    ways = (REUSE, RESTART, APART)
    repeats = round(bench.pick(quick=3, full=7))
    costs: dict[str, list[Cost]] = {way: [] for way in ways}
    for repetition in range(repeats):
        dice = random.Random(repetition)
        pauses = [dice.lognormvariate(0, _SPREAD) * _PAUSE for _ in TRACE]
        for way in ways if repetition % 2 else reversed(ways):
            costs[way].append(await typist.type(way, pauses))
            bench.tick(1 / (repeats * len(ways)))
    lines = []
    for title, unit, name in (
        ("Worker CPU of a 20-revision edit", "s", "cpu"),
        ("Steps begun in it", "steps", "steps"),
        ("Last key → its result", "ms", "wait"),
    ):
        ours, restarts, apart = (
            Series(way, [getattr(c, name) for c in costs[way]]) for way in ways
        )
        bound = at_most(0.75) if name == "cpu" else None
        lines.append(Line(title, unit, ours, restarts, bound))
        lines.append(Line(f"{title}, else", unit, ours, apart))
    calls: dict[str, list[Cost]] = {SETTLED: [], EAGER: []}
    for repetition in range(repeats):
        dice = random.Random(repetition)
        pauses = [dice.lognormvariate(0, _SPREAD) * _PAUSE for _ in TRACE]
        for way, found in calls.items():
            found.append(await typist.type(way, pauses))
    for title, unit, name in (
        ("Paid calls of a 20-revision edit", "calls", "steps"),
        ("Last key → the paid call's result", "ms", "wait"),
    ):
        settled, eager = (Series(way, [getattr(c, name) for c in calls[way]]) for way in calls)
        bound = at_most(0.2) if name == "steps" else None
        lines.append(Line(title, unit, settled, eager, bound))
    return lines


FIGURE = Figure("editing", "A user who edits", measure)

if __name__ == "__main__":
    sys.exit(
        run(
            "python -m benchmarks.editing",
            __doc__ or "",
            [FIGURE],
            Path("build/benchmarks-editing"),
        )
    )
