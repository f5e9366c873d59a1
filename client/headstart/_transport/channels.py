"""Chooses the channel for each call: replaces one that is dead, or whose TLS files have changed.

Used by asyncio and by threads alike: nothing here waits, and all of it may be called from any
thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

import grpc

from headstart._errors import ServiceUnavailable
from headstart._transport.endpoint import Endpoint
from headstart._transport.file_changes import FileChanges, FileStates
from headstart._transport.forks import ForkLock
from headstart.v1.precompute_pb2_grpc import PrecomputeServiceStub

logger = logging.getLogger("headstart")

C = TypeVar("C")
"""grpc.aio.Channel or grpc.Channel."""

# In seconds. A call that was cancelled without an answer may be of a user who left. But calls that
# all had no answer for so long show a lost connection.
_SILENCE: Final = 1.0
_NEVER: Final = float("-inf")

# A server sends all other codes.
_UNANSWERED: Final = {
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
}


@dataclass(eq=False, slots=True)
class OpenChannel(Generic[C]):
    """A channel, its stub, and what the calls on it have shown."""

    channel: C
    stub: Any
    """PrecomputeServiceStub."""
    files: FileStates
    """The TLS files that it was opened with."""
    clock: Callable[[], float]
    calls: int = 0
    """How many are under way."""
    answered: float = _NEVER
    """When the last answer came, on the monotonic clock."""
    silent_since: float = _NEVER
    """When the first of the latest unanswered calls was due."""

    def note_answer(self) -> None:
        """Note that the server has answered: the connection lives."""
        self.answered = self.clock()


class Channels(Generic[C]):
    """One endpoint's channel. The next call opens another one in two cases.

    A call got no answer in time, and nothing else was answered since it began. Something between
    may have dropped the flow without a word: TCP notices that after many seconds, a new connection
    works at once. A channel that has never answered is kept, because a new one would not be better.

    The TLS files have changed. If the new ones cannot be used, the channel stays.

    A channel that was replaced is closed when its last call has ended.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        open_channel: Callable[[], C],
        close: Callable[[C], object],
        clock: Callable[[], float],
    ) -> None:
        """Keep how to open and close a channel; nothing is opened yet. `clock` returns seconds."""
        self._clock = clock
        self._files = FileChanges(*endpoint.files(), clock=clock)
        self._open = open_channel
        self._close = close
        self._lock = ForkLock()
        self._current: OpenChannel[C] | None = None
        self._replaced: set[OpenChannel[C]] = set()
        self._refused: FileStates = ()

    def current(self) -> OpenChannel[C]:
        """Return the channel for a call that begins now, and open it if need be.

        Raises:
            ServiceUnavailable: A TLS file cannot be read, and no channel is open.
        """
        with self._lock:
            return self._checked()

    @property
    def open(self) -> bool:
        """Return whether a channel is open."""
        return self._current is not None or bool(self._replaced)

    @contextmanager
    def use(
        self, opened: OpenChannel[C] | None = None, *, quiet: float = 0.0
    ) -> Iterator[OpenChannel[C]]:
        """Keep a channel open for one call, and learn from how the call ends.

        Args:
            opened: The channel that the call uses. Default: the current one.
            quiet: Seconds for which the server may rightly send nothing.

        Raises:
            ServiceUnavailable: A TLS file cannot be read, and no channel is open.
        """
        with self.held(opened) as held:
            due = self._clock() + quiet
            try:
                yield held
            except BaseException as error:
                self._note_failure(held, due, error)
                raise
            held.note_answer()

    @contextmanager
    def held(self, opened: OpenChannel[C] | None = None) -> Iterator[OpenChannel[C]]:
        """Keep a channel open, by default the current one, and learn nothing."""
        with self._lock:
            opened = opened or self._checked()
            opened.calls += 1
        try:
            yield opened
        finally:
            self._release(opened)

    def close(self) -> list[C]:
        """Forget all channels, and return those that are open, for the caller to close."""
        with self._lock:
            opened = [*self._replaced, *([self._current] if self._current else [])]
            self._current = None
            self._replaced.clear()
        return [each.channel for each in opened]

    def _checked(self) -> OpenChannel[C]:
        files = self._files.states()
        if self._current is None:
            self._current = self._opened(files)
        elif files not in (self._current.files, self._refused):
            try:
                replacement = self._opened(files)
            except ServiceUnavailable as error:
                self._refused = files
                logger.warning("the connection keeps its TLS files: %s", error)
            else:
                self._retire(self._current)
                self._current = replacement
        return self._current

    def _opened(self, files: FileStates) -> OpenChannel[C]:
        channel = self._open()
        return OpenChannel(channel, PrecomputeServiceStub(cast("Any", channel)), files, self._clock)

    def _note_failure(self, opened: OpenChannel[C], due: float, error: BaseException) -> None:
        cancelled = isinstance(error, asyncio.CancelledError)
        code = error.code() if isinstance(error, grpc.RpcError) and hasattr(error, "code") else None
        if code is not None and code not in _UNANSWERED:
            opened.note_answer()
            return
        late = code is grpc.StatusCode.DEADLINE_EXCEEDED
        now = self._clock()
        if not (late or cancelled) or now < due or not _NEVER < opened.answered < due:
            return
        if opened.silent_since < opened.answered:
            opened.silent_since = due
        if late or now - opened.silent_since >= _SILENCE:
            with self._lock:
                if opened is self._current:
                    self._retire(opened)
                    self._current = None

    def _retire(self, opened: OpenChannel[C]) -> None:
        self._replaced.add(opened)
        if not opened.calls:
            self._discard(opened)

    def _release(self, opened: OpenChannel[C]) -> None:
        with self._lock:
            opened.calls -= 1
            if not opened.calls and opened in self._replaced:
                self._discard(opened)

    def _discard(self, opened: OpenChannel[C]) -> None:
        self._replaced.discard(opened)
        self._close(opened.channel)
