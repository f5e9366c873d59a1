"""What steps of `headstart.testing.fake_server` give before they end."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from headstart._messages.artifacts import Artifact, Json
from headstart._messages.json_text import write_json
from headstart.v1 import precompute_pb2 as pb


@dataclass(frozen=True, slots=True)
class ScriptedStream:
    """The pieces of one step: text, or items as JSON lines."""

    pieces: tuple[bytes, ...]
    lines: bool
    whole: Artifact
    """The result of a step for which no other one is scripted."""

    def times(self, after: float) -> list[float]:
        """Return when each piece is there, of a step that ends `after` so many seconds."""
        if not math.isfinite(after):
            return [0.0] * len(self.pieces)
        return [after * number / len(self.pieces) for number in range(len(self.pieces))]

    def given(self, after: float, had: float) -> bytes:
        """Return what is there after `had` seconds."""
        times = zip(self.pieces, self.times(after), strict=True)
        return b"".join(piece for piece, at in times if at <= had)


def stream_of(step: str, pieces: Iterable[Json]) -> ScriptedStream:
    """Return a script's stream. Raises TypeError."""
    if isinstance(pieces, str):
        raise TypeError(f"streams[{step!r}] must be a list of pieces, is {pieces!r}")
    given = list(pieces)
    texts = [piece for piece in given if isinstance(piece, str)]
    if len(texts) == len(given):
        return ScriptedStream(tuple(map(str.encode, texts)), lines=False, whole="".join(texts))
    lines = tuple(f"{write_json(piece)}\n".encode() for piece in given)
    return ScriptedStream(lines, lines=True, whole=given)


def partial_of(
    step: str, data: bytes, generation: int, cursor: pb.PartialCursor | None, *, lines: bool
) -> pb.PartialResult | None:
    """Return what a step has given beyond a cursor; None without news."""
    same = cursor is not None and cursor.generation == generation
    at = cursor.offset if cursor is not None and same and cursor.offset <= len(data) else 0
    if at == len(data) and (same or not data):
        return None
    text = data[at:].decode(errors="replace")
    return pb.PartialResult(
        step=step,
        generation=generation,
        offset=at,
        next_offset=len(data),
        text="" if lines else text,
        json_lines=text.split("\n")[:-1] if lines else (),
        restarted=cursor is not None and cursor.generation not in {0, generation},
    )


def advance(cursors: dict[str, pb.PartialCursor], partials: Iterable[pb.PartialResult]) -> None:
    """Move cursors behind what was sent."""
    for each in partials:
        cursors[each.step] = pb.PartialCursor(
            step=each.step, generation=each.generation, offset=each.next_offset
        )
