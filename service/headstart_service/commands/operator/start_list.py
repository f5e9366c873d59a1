"""`headstart start --file`: start what a list names, line by line, in batches."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from ...base import exit_codes
from ...base.output import is_terminal, plain
from ..inputs_argument import inputs_of
from .execution import complain
from .start_lines import Line, line_of, lines_of

_MOST: Final = 200
"""Starts of one call."""
_MOST_BYTES: Final = 1 << 20
"""Bytes of lines in one call, one line at least."""
_TRIES: Final = 6
"""How often a start is sent that the server has no room for."""
_LONGEST_PAUSE: Final = 30.0
_BAR: Final = 24


async def start_list(client: Any, options: argparse.Namespace) -> int:
    """Start each line of `options.file` and print those that failed. Return the exit code."""
    common = _common(options)
    starting = _Starting(client, options)
    with _opened(options.file) as (stream, size), _Progress(size) as progress:
        batch: list[Line] = []
        for number, raw in lines_of(stream):
            progress.read(len(raw))
            try:
                line = line_of(number, raw, common)
            except ValueError as error:
                starting.failed(number, "", error)
                continue
            if line is None:
                continue
            if batch and (
                len(batch) == _MOST or sum(e.size for e in batch) + line.size > _MOST_BYTES
            ):
                await starting.start(batch)
                progress.show(starting.outcomes)
                batch = []
            batch.append(line)
        if batch:
            await starting.start(batch)
        progress.show(starting.outcomes)
    if not options.json:
        print(_summary(starting.outcomes), flush=True)
    return exit_codes.FAILED if starting.outcomes["failed"] else exit_codes.DONE


def refuse_unfit(options: argparse.Namespace) -> None:
    """Refuse what `--file` leaves no meaning. Raises ValueError."""
    given = [name for name in ("key", "anchor") if getattr(options, name) is not None]
    if given:
        raise ValueError("give a key, or --file with a key a line, not both")
    if options.recipient is not None or options.clues is not None:
        raise ValueError("--recipient, --clues: for a bridging game alone, not with --file")
    if options.file == "-" and options.inputs == "-":
        raise ValueError("--file and --inputs cannot both read standard input")


class _Starting:
    """Sends starts, and counts what became of them."""

    def __init__(self, client: Any, options: argparse.Namespace) -> None:
        self._client = client
        self._name = "standard input" if options.file == "-" else options.file
        self._json = options.json
        self.outcomes: Counter[str] = Counter()

    async def start(self, batch: Sequence[Line]) -> None:
        """Start these lines. Raises the client's error when a whole call fails."""
        import headstart

        left = list(batch)
        for attempt in range(1, _TRIES + 1):
            refused: list[Line] = []
            pause = 0.0
            for line, found in zip(left, await self._sent(left), strict=True):
                if isinstance(found, headstart.ResourceExhausted) and attempt < _TRIES:
                    refused.append(line)
                    pause = max(pause, min(found.retry_after or 1.0, _LONGEST_PAUSE))
                elif isinstance(found, Exception):
                    self.failed(line.number, line.key, found)
                else:
                    self._started(line, found)
            if not refused:
                return
            await asyncio.sleep(pause)
            left = refused

    async def _sent(self, lines: Sequence[Line]) -> list[Any]:
        """Return what became of each line."""
        import headstart

        try:
            return list(await self._client.start_many([line.start for line in lines]))
        except headstart.InvalidRequest as error:
            # One of them cannot be sent, so none was.
            if len(lines) == 1:
                return [error]
            return [found for line in lines for found in await self._sent([line])]

    def failed(self, number: int, key: str, error: Exception) -> None:
        """Tell that a line is not started, and why."""
        self.outcomes["failed"] += 1
        if self._json:
            data = {"line": number, "key": key or None, "error": str(error)}
            print(json.dumps(data), flush=True)
        else:
            complain(f"{self._name}:{number}: {f'{key}: ' if key else ''}{error}")

    def _started(self, line: Line, started: Any) -> None:
        self.outcomes[str(started.outcome)] += 1
        if self._json:
            print(json.dumps({"line": line.number, **plain(started)}), flush=True)


def _common(options: argparse.Namespace) -> Mapping[str, Any]:
    """Return what holds for each line that has nothing else."""
    return {
        "pipeline": options.pipeline,
        "inputs": inputs_of(options.inputs or "{}"),
        "expected_need_in": options.needed_in,
        "ttl": options.ttl,
        "restart": options.restart,
    }


@contextmanager
def _opened(name: str) -> Iterator[tuple[BinaryIO, int]]:
    """Open the list; its size in bytes is 0 for standard input. Raises ValueError."""
    if name == "-":
        yield sys.stdin.buffer, 0
        return
    try:
        stream = Path(name).expanduser().open("rb")
    except OSError as error:
        raise ValueError(f"--file {name}: {error.strerror}") from None
    with stream:
        yield stream, os.fstat(stream.fileno()).st_size


def _summary(outcomes: Counter[str]) -> str:
    counts = [f"{name} {count}" for name, count in sorted(outcomes.items()) if name != "failed"]
    failed = [f"failed {outcomes['failed']}"] if outcomes["failed"] else []
    return ", ".join([*counts, *failed]) or "the list is empty"


class _Progress:
    """A bar on standard error, if that is a terminal."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._bytes = 0
        self._shown = is_terminal(sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def read(self, size: int) -> None:
        """Note that so many bytes more are read."""
        self._bytes += size

    def show(self, outcomes: Counter[str]) -> None:
        """Draw how far it is."""
        if not self._shown:
            return
        done = round(_BAR * min(1.0, self._bytes / self._size)) if self._size else 0
        bar = f"[{'#' * done}{'.' * (_BAR - done)}] " if self._size else ""
        sys.stderr.write(f"\r\x1b[K{bar}{_summary(outcomes)}")
        sys.stderr.flush()
