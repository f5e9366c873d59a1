"""What a step that streams has given so far, and how its generator is read to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from itertools import count
from typing import Any, Final

from headstart.v1 import precompute_pb2 as pb

from ..domain import FailureReason, PartialForm, Progress
from ..domain.errors import StepFailed
from ..pipeline.step import Step
from ..pipeline.streams import Streaming, streaming_of
from ..values.annotations import spelled
from ..values.kinds import Kind, kind_of
from ..values.limits import Limits
from .hurry import Hurry

_TRIALS: Final = count(1)
"""Numbers each try of a step in this process: a later one makes earlier ones void."""
_TURN: Final = 32
"""Pieces after which others get a turn: a generator need not wait for anything between them."""
_NOTHING: Final = object()


class StepLog:
    """What one step has given and reported so far, for every run that waits for it."""

    def __init__(self, streaming: Streaming | None) -> None:
        self.streaming = streaming
        """None for a step that only returns."""
        self.progress: Progress | None = None
        self.data = bytearray()
        """The bytes of the present try."""
        self.trial = 0
        """0 before the first try."""
        self.users = 0
        """How many runs, and work under way, hold it."""
        self.hurry = Hurry()
        """Set once a caller waits for the step."""
        self._followers: set[Callable[[], None]] = set()
        self._reporting: set[Callable[[Progress], None]] = set()

    @property
    def form(self) -> PartialForm:
        """Whether the bytes are text or JSON lines."""
        return PartialForm.TEXT if self.streaming is None else self.streaming.form

    def begin(self) -> None:
        """Begin a try: what was given before is void."""
        self.trial, self.data = next(_TRIALS), bytearray()
        self._notify()

    def add(self, data: bytes) -> None:
        """Note what the step has given."""
        if data:
            self.data += data
            self._notify()

    @contextmanager
    def followed(self, follower: Callable[[], None]) -> Iterator[None]:
        """Call `follower` whenever there is something new."""
        self._followers.add(follower)
        try:
            yield
        finally:
            self._followers.discard(follower)

    def note_progress(self, progress: Progress) -> None:
        """Note what the step reports."""
        self.progress = progress
        for reporting in self._reporting:
            reporting(progress)

    @contextmanager
    def reporting(self, progressed: Callable[[Progress], None]) -> Iterator[None]:
        """Call `progressed` with each report, and with the last one now."""
        self._reporting.add(progressed)
        if self.progress is not None:
            progressed(self.progress)
        try:
            yield
        finally:
            self._reporting.discard(progressed)

    def _notify(self) -> None:
        for follower in self._followers:
            follower()


def _collecting(
    step: Step, log: StepLog, streaming: Streaming, item: Kind | None, limits: Limits
) -> Step:
    """Return the step as one that returns: it puts what it yields into the log.

    `item` is the kind of its items; None of a step that yields text.
    """

    async def collected(**arguments: Any) -> Any:
        log.begin()
        async with aclosing(step.function(**arguments)) as pieces:
            return await _collect(pieces, log, streaming, item, limits)

    return replace(step, function=collected)


async def _collect(
    pieces: AsyncGenerator[Any],
    log: StepLog,
    streaming: Streaming,
    item: Kind | None,
    limits: Limits,
) -> Any:
    room = _Room(log, limits)
    collection = _Items(room, item) if item is not None else _Text(room, streaming)
    given = 0
    cancelled: BaseException | None = None
    while True:
        try:
            piece = await (anext(pieces) if cancelled is None else pieces.athrow(cancelled))
        except StopAsyncIteration:
            return collection.result()
        cancelled = None
        collection.take(piece)
        given += 1
        if given % _TURN == 0:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as error:
                cancelled = error  # maybe a timeout's of the generator, which handles it there


class _Room:
    """The room for what a step yields: as much as its result may have."""

    def __init__(self, log: StepLog, limits: Limits) -> None:
        self._log = log
        self._limits = limits

    def add(self, data: bytes) -> None:
        """Put bytes into the log, unless they are too many: then raise StepFailed."""
        most = self._limits.artifact
        if len(self._log.data) + len(data) > most:
            raise StepFailed(
                f"yielded more than {most:,} bytes, {self._limits.setting}",
                retry=False,
                failure_reason=FailureReason.TOO_LARGE,
            )
        self._log.add(data)


class _Items:
    """What a step of items has yielded."""

    def __init__(self, room: _Room, kind: Kind) -> None:
        self._room = room
        self._kind = kind
        self._items: list[Any] = []

    def take(self, piece: Any) -> None:
        """Put an item into the log. Raises StepFailed."""
        checked, line = _line(piece, self._kind)
        self._items.append(checked)
        self._room.add(line)

    def result(self) -> list[Any]:
        """Return the step's result."""
        return self._items


class _Text:
    """What a step of text has yielded, with its last value if it has one."""

    def __init__(self, room: _Room, streaming: Streaming) -> None:
        self._room = room
        self._streaming = streaming
        self._texts: list[str] = []
        self._last: Any = _NOTHING

    def take(self, piece: Any) -> None:
        """Put text into the log, or keep the last value. Raises StepFailed."""
        if self._last is not _NOTHING:
            raise _wrong(f"yielded {type(piece).__name__} after its result")
        if isinstance(piece, str):
            self._room.add(_utf8(piece))
            self._texts.append(piece)
        elif self._streaming.ends_with_value:
            self._last = piece
        else:
            raise _wrong(f"yielded {type(piece).__name__}, not str")

    def result(self) -> Any:
        """Return the step's result. Raises StepFailed."""
        streaming = self._streaming
        if not streaming.ends_with_value:
            return "".join(self._texts)
        if self._last is _NOTHING:
            raise _wrong(f"ended without its last value, of type {spelled(streaming.item)}")
        return self._last


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _wrong("yielded text that is not Unicode: a lone surrogate") from None


def _line(piece: Any, item: Kind) -> tuple[Any, bytes]:
    """Return an item as the result has it, and as the line that callers get."""
    artifact = pb.Artifact()
    try:
        checked = item.checked(piece)
        item.write(checked, artifact)
    except StepFailed as error:
        raise _wrong(str(error).replace("returned", "yielded", 1)) from error
    if artifact.WhichOneof("value") != "json":
        raise _wrong(f"yielded {type(piece).__name__}, which is no JSON")
    return checked, artifact.json.encode() + b"\n"


def _wrong(reason: str) -> StepFailed:
    return StepFailed(reason, retry=False, failure_reason=FailureReason.WRONG_TYPE)


class StepLogs:
    """The logs of a worker's steps under way."""

    def __init__(self) -> None:
        self._logs: dict[Any, StepLog] = {}
        self._streaming: dict[Callable[..., Any], tuple[Streaming, Kind | None]] = {}

    @contextmanager
    def log(
        self,
        key: Any,
        step: Step,
        progressed: Callable[[Progress], None],
        *,
        fresh: bool = False,
    ) -> Iterator[StepLog]:
        """Hold the log of this key's step; `progressed` is called with what the step reports.

        A `fresh` one is shared with later users alone.
        """
        log = None if fresh else self._logs.get(key)
        if log is None:
            log = self._logs[key] = StepLog(self._streaming_of(step)[0])
        with self.held(key, log), log.reporting(progressed):
            yield log

    @contextmanager
    def held(self, key: Any, log: StepLog) -> Iterator[None]:
        """Keep a log for later users of the key, while the context is open."""
        log.users += 1
        try:
            yield
        finally:
            log.users -= 1
            if not log.users and self._logs.get(key) is log:
                del self._logs[key]

    def collecting(self, step: Step, log: StepLog, limits: Limits) -> Step:
        """Return the step as one that returns: what it yields goes into the log."""
        streaming, item = self._streaming_of(step)
        return step if streaming is None else _collecting(step, log, streaming, item, limits)

    def _streaming_of(self, step: Step) -> tuple[Streaming | None, Kind | None]:
        if not step.streams:
            return None, None
        found = self._streaming.get(step.function)
        if found is None:
            streaming = streaming_of(step)
            assert streaming is not None  # its pipeline would have been refused
            lines = streaming.form is PartialForm.LINES
            found = streaming, kind_of(streaming.item) if lines else None
            self._streaming[step.function] = found
        return found
