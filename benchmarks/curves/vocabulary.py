"""What a game costs a worker when its vocabulary grows; see `vocabulary_process` for how.

Memory is what a process grows by: the matrix, which is mapped and shared by the workers of one
machine, the words and their index, and 64 finished scans.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence

from ..harness import Bench, Figure
from ..processes import ROOT, clean_environment
from ..results import Line
from .curve import Curve, repeats, trace

_SIZES = (10_000, 30_000, 100_000, 300_000)


async def measure(bench: Bench) -> Sequence[Line]:
    samples: dict[str, dict[float, list[float]]] = {}
    for size in _SIZES:
        command = [sys.executable, "-m", "benchmarks.curves.vocabulary_process"]
        process = await asyncio.create_subprocess_exec(
            *(*command, str(size), str(repeats(bench) * 3), str(bench.work)),
            cwd=ROOT,
            env=clean_environment(),
            stdout=asyncio.subprocess.PIPE,
        )
        output = (await process.communicate())[0]
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
        for name, found in json.loads(output).items():
            samples.setdefault(name, {})[size] = found
        bench.tick(1 / len(_SIZES))
    memory = samples.pop("memory")
    lines = [
        line for name, found in samples.items() for line in trace(name, "ms of one core", found)
    ]
    return [*lines, *trace("vocabulary and 64 finished scans", "MB resident", memory)]


CURVE = Curve(
    Figure("vocabulary", "A game's computation, by its vocabulary", measure), "words of 384 numbers"
)
