"""Texts to vectors on ONNX Runtime against sentence-transformers, and rating against reading.

Both engines have the same weights and one thread, take turns, and get words that they have not had.
A rating is of 30,000 words for so many games; its reference reads all of their vectors once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from ..harness import Bench, Figure
from ..processes import start_server
from ..results import Line, Series, at_most, percentile

_BOUNDS = {1: 0.5, 2: 0.5, 8: 1.0, 64: 1.0, 256: 1.0}
"""By texts at once: a game has two. Many take both engines as long as a core can multiply."""
_GAMES = (1, 32)


async def measure(bench: Bench) -> Sequence[Line]:
    _, address = await start_server(bench, "parts")
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**24)
    bench.stack.callback(writer.close)

    async def timed(part: str, size: int) -> float:
        times = max(3, round(bench.pick(quick=64, full=256) / size))
        order = {"part": part, "size": size, "times": times}
        writer.write(json.dumps(order).encode() + b"\n")
        await writer.drain()
        return percentile(json.loads(await reader.readline()), 50) * 1000

    def of(part: str, size: int) -> Callable[[], Awaitable[float]]:
        return partial(timed, part, size)

    lines = []
    for texts, bound in _BOUNDS.items():
        ours, theirs = await bench.alternate(
            of("onnxruntime", texts), of("sentence-transformers", texts)
        )
        lines.append(
            Line(
                f"{texts} text{'s' * (texts > 1)} embedded",
                "ms",
                Series("ONNX Runtime", ours),
                Series("sentence-transformers", theirs),
                at_most(bound),
                "1 thread each",
            )
        )
    for games in _GAMES:
        rated, read = await bench.alternate(of("rate", games), of("read", 1))
        lines.append(
            Line(
                f"30,000 words rated for {games} game{'s' * (games > 1)}",
                "ms",
                Series("Headstart", rated),
                Series("their vectors read once", read),
                at_most(1.5),
            )
        )
    return lines


FIGURE = Figure("encoder", "Embedding texts, rating words", measure)
