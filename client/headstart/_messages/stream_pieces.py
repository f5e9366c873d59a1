"""What a step gives before it ends, as a caller iterates over it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from headstart._messages.artifacts import Artifact, Json
from headstart._messages.results import Results
from headstart.v1 import precompute_pb2 as pb

_NO_RESULT: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPiece:
    """What a step has given since the piece before."""

    text: str = ""
    """Its text, if it gives text."""
    items: Sequence[Json] = ()
    """Its items, if it gives items."""
    restarted: bool = False
    """Whether the step has begun anew, so that all earlier pieces are void."""
    result: Artifact = None
    """In the last piece, if the step's result is neither the whole text nor the list of all items:
    that result."""

    def __str__(self) -> str:
        """Return the text."""
        return self.text


@dataclass(slots=True)
class ReceivedPieces:
    """The pieces of one step that a caller has received, over all streams."""

    step: str
    cursor: pb.PartialCursor | None = None
    """Up to where: what the next stream begins behind."""
    _texts: list[str] = field(default_factory=list)
    _items: list[Json] = field(default_factory=list)

    def take(self, partial: pb.PartialResult) -> StreamPiece | None:
        """Return what is new in a partial result, if anything is."""
        if partial.step != self.step:
            return None
        before = self.cursor
        anew = before is not None and partial.generation != before.generation
        if before is not None and not anew and partial.offset < before.offset:
            return None  # received already, before the stream was cut
        self.cursor = pb.PartialCursor(
            step=self.step, generation=partial.generation, offset=partial.next_offset
        )
        if not (partial.text or partial.json_lines or anew):
            return None
        items = [json.loads(line) for line in partial.json_lines]
        return self._piece(partial.text, items, anew=anew)

    @property
    def value(self) -> str | list[Json]:
        """All that was received of the present generation."""
        return list(self._items) if self._items else "".join(self._texts)

    def rest(self, results: Results) -> Iterator[StreamPiece]:
        """Yield what the step's result has beyond the pieces.

        A result that was not computed for this run, or whose pieces were lost, is given whole.
        """
        result: Any = (results.custom or {}).get(self.step, _NO_RESULT)
        if result is _NO_RESULT:
            return  # a game's results have fields of their own
        if isinstance(result, str) and not self._items:
            given = "".join(self._texts)
            anew = not result.startswith(given)
            if rest := result if anew else result[len(given) :]:
                yield self._piece(rest, [], anew=anew)
        elif isinstance(result, list) and not self._texts:
            count = len(self._items)
            anew = result[:count] != self._items
            if (items := result if anew else result[count:]) or anew:
                yield self._piece("", items, anew=anew)
        else:
            yield StreamPiece(result=result)

    def _piece(self, text: str, items: list[Json], *, anew: bool) -> StreamPiece:
        if anew:
            self._texts.clear()
            self._items.clear()
        if text:
            self._texts.append(text)
        self._items += items
        return StreamPiece(text=text, items=tuple(items), restarted=anew)


class ReceivedPartials:
    """The pieces of all of a run's steps that a caller has received, over all streams."""

    def __init__(self) -> None:
        self._steps: dict[str, ReceivedPieces] = {}

    @property
    def cursors(self) -> Iterator[pb.PartialCursor]:
        """Up to where: what the next stream begins behind."""
        return (each.cursor for each in self._steps.values() if each.cursor is not None)

    @property
    def values(self) -> dict[str, str | list[Json]]:
        """By step, all that was received."""
        return {name: value for name, each in self._steps.items() if (value := each.value)}

    def take(self, partials: Iterable[pb.PartialResult]) -> None:
        """Note partial results."""
        for each in partials:
            if each.step not in self._steps:
                self._steps[each.step] = ReceivedPieces(each.step)
            self._steps[each.step].take(each)
