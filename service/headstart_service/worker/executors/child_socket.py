"""The socket between a worker and a process that it has started: pickles behind their length."""

from __future__ import annotations

import asyncio
import ctypes
import os
import pickle
import signal
import struct
import sys
from typing import Any, Final

LENGTH: Final = struct.Struct("!Q")
"""What stands before each message: its bytes."""
_PR_SET_PDEATHSIG: Final = 1


def framed(body: bytes) -> bytes:
    """Put a message's length before it."""
    return LENGTH.pack(len(body)) + body


def message(content: Any) -> bytes:
    """Pickle `content`, and put its length before it."""
    return framed(pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL))


async def receive(reader: asyncio.StreamReader) -> bytes:
    """Wait for one message. Raises IncompleteReadError or OSError when the other end is gone."""
    (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    return await reader.readexactly(size)


def command(module: str, *arguments: Any) -> list[str]:
    """Build the command for a process that calls `main` of `module`, with the worker's paths.

    `arguments` are passed to `main` by their repr.
    """
    given = ", ".join(map(repr, arguments))
    start = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; main({given})"
    return [sys.executable, "-c", start]


def end_with(parent: int) -> None:
    """End this process as soon as its `parent` ends, also while C code runs."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
