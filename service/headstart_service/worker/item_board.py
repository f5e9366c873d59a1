"""What there is of the items of one step, and how it is written into a run's record."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from headstart.v1 import precompute_pb2 as pb

from ..domain import FailureReason, ItemsChunk, KeptItems
from ..domain.errors import StepFailed
from ..values.fragments import PROTO_REASON, REASONS
from ..values.items import written_item
from ..values.limits import Limits

_TIMED: Final = 64
"""Durations of items that an estimate is made of: the last ones."""


@dataclass(frozen=True, slots=True)
class EndedItem:
    """One item that has ended."""

    json: str
    """Its value as JSON; empty if it has failed."""
    error: str = ""
    reason: FailureReason | None = None
    attempts: int = 0

    @property
    def size(self) -> int:
        """Its bytes, roughly."""
        return len(self.json) + len(self.error)


class ItemBoard:
    """The items of one step that have ended, those that are not written yet, and their count."""

    def __init__(self, step: str, total: int, basis: str, limits: Limits, held: int) -> None:
        """Expect `total` items of this basis. The run has `held` bytes beside them."""
        self.step = step
        self.total = total
        self.running = 0
        self.size = 0
        """The bytes of all items that have ended."""
        self._basis = basis
        self._limits = limits
        self._held = held
        self._ended: dict[int, EndedItem] = {}
        self._unwritten: list[int] = []
        self._failed = 0
        self._chunks = 0
        self._took: deque[float] = deque(maxlen=_TIMED)

    def restore(self, kept: KeptItems | None) -> None:
        """Take the items over that an earlier holder of the run has ended, of the same list."""
        if kept is None or kept.basis != self._basis:
            return
        self._chunks = kept.chunks
        try:
            items = pb.GetResultsResponse.FromString(kept.fragment).items
        except DecodeError:  # they are computed again
            return
        for item in items:
            if 0 <= item.index < self.total and item.index not in self._ended:
                ended = EndedItem(
                    item.json, item.error, REASONS.get(item.failure_reason), item.attempts
                )
                self._keep(item.index, ended)

    @property
    def left(self) -> list[int]:
        """The places of the items that have not ended."""
        return [index for index in range(self.total) if index not in self._ended]

    @property
    def failures(self) -> list[EndedItem]:
        """The items that have failed, in their order."""
        return [item for _, item in sorted(self._ended.items()) if item.reason is not None]

    @property
    def attempts(self) -> int:
        """How often an item was tried at most."""
        return max((item.attempts for item in self._ended.values()), default=0)

    def end(self, index: int, item: EndedItem, took: float | None) -> None:
        """Keep an item that took so many seconds; None if it was not computed now.

        Raises StepFailed when all items together are more than a step or its run may have.
        """
        self._keep(index, item)
        self._unwritten.append(index)
        if took is not None:
            self._took.append(took)
        if self.size > self._limits.artifact:
            raise StepFailed(
                f"{len(self._ended)} of {self.total} items are {self.size:,} bytes; "
                f"{self._limits.setting} is {self._limits.artifact:,}",
                retry=False,
                failure_reason=FailureReason.TOO_LARGE,
            )
        self._limits.admit(self._held, self.size)

    def _keep(self, index: int, item: EndedItem) -> None:
        self._ended[index] = item
        self._failed += item.reason is not None
        self.size += item.size

    def chunk(self, report: bytes) -> ItemsChunk:
        """Return what has ended since the last chunk, beside the step's `report`."""
        news, self._unwritten = self._unwritten, []
        if news:
            self._chunks += 1
        fragment = self._fragment(news)
        return ItemsChunk(self.step, self._basis, self._chunks, fragment, report)

    def whole(self) -> bytes:
        """Return the fragment of the step's value: the list of values and failures."""
        response = pb.GetResultsResponse()
        items = (self._ended[index] for index in range(self.total))
        texts = (written_item(item.json, item.error, item.reason) for item in items)
        response.custom.artifacts[self.step].json = f"[{','.join(texts)}]"
        return response.SerializeToString()

    def failed(self) -> bytes:
        """Return the fragment of all items, of a step that has no value."""
        return self._fragment(sorted(self._ended))

    def progress(self) -> pb.ItemProgress:
        """Return how far the step is."""
        failed = self._failed
        progress = pb.ItemProgress(
            total=self.total,
            completed=len(self._ended) - failed,
            failed=failed,
            running=self.running,
        )
        if self._took:
            ordered = sorted(self._took)
            last = len(ordered) - 1
            progress.estimate.p50.FromNanoseconds(round(ordered[round(last * 0.5)] * 1e9))
            progress.estimate.p90.FromNanoseconds(round(ordered[round(last * 0.9)] * 1e9))
        return progress

    def _fragment(self, places: list[int]) -> bytes:
        response = pb.GetResultsResponse()
        for index in places:
            item = self._ended[index]
            message = response.items.add(
                step=self.step, index=index, json=item.json, error=item.error
            )
            message.attempts = item.attempts
            if item.reason is not None:
                message.failure_reason = PROTO_REASON[item.reason]
        return response.SerializeToString()


class Pause:
    """How long to wait between two writes of a step's items.

    Callers that watch read all items after each write, so larger ones are written less often. Each
    write is a field of the record, so a step that takes long writes less often, too.
    """

    FIRST: Final = 0.05
    _BYTES_A_SECOND: Final = 8 * 1024 * 1024
    _WRITES: Final = 64
    """After so many writes the pause is twice as long, and so on."""

    def __init__(self) -> None:
        self._written = time.monotonic()
        self._writes = 0

    def left(self, size: int) -> float:
        """Return the seconds until the next write, of items of this size together."""
        pause = self.FIRST * (1 + self._writes / self._WRITES) + size / self._BYTES_A_SECOND
        return max(0.0, self._written + pause - time.monotonic())

    def written(self) -> None:
        """Note that a write has ended."""
        self._written = time.monotonic()
        self._writes += 1
