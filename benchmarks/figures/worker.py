"""A worker from its start to its first job, and what it holds then."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from ..harness import Bench, Figure
from ..processes import start_worker
from ..results import Line, Series, at_most

_HEAVY = ("torch", "transformers", "sentence_transformers", "sklearn", "scipy", "onnx")


async def measure(bench: Bench) -> Sequence[Line]:
    url = await bench.valkey()
    held: list[float] = []
    heavy: list[float] = []

    async def ready() -> float:
        async with AsyncExitStack() as stack:
            began = time.perf_counter()
            worker = await start_worker(replace(bench, stack=stack), url)
            took = time.perf_counter() - began
            held.append(worker.resident_mb())
            libraries = worker.libraries()
            found = {name for name in _HEAVY if any(f"/{name}/" in path for path in libraries)}
            heavy.append(float(len(found)))
            return took

    (took,) = await bench.alternate(ready)
    return [
        Line("worker, start to ready", "s", Series("Headstart", took), target=at_most(2.5)),
        Line("worker, resident", "MB", Series("Headstart", held), target=at_most(350)),
        Line(
            "… torch, transformers, scikit-learn, onnx in it",
            "libraries",
            Series("Headstart", heavy),
            target=at_most(0),
        ),
    ]


FIGURE = Figure("worker", "A worker's start", measure)
