"""The process of steps that run in one: one call after the other, until its worker is gone.

Messages are pickles behind their length. The main thread calls, so that a step may do there what
only a main thread can; another one listens, so that this process ends as soon as its worker does.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import pickle
import queue
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from .remote_call import (
    Call,
    Performed,
    packed,
    perform_call,
)

LENGTH: Final = struct.Struct("!Q")
_PR_SET_PDEATHSIG: Final = 1


def main(descriptor: int, parent: int, modules: Sequence[str]) -> None:
    """Serve the worker `parent` at the other end of this socket, with these modules imported."""
    # Also when a step is in C code and lets no other thread run.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    connection = socket.socket(fileno=descriptor)
    work: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, work), name="worker", daemon=True).start()
    try:
        for module in modules:
            importlib.import_module(module)
    except BaseException:  # noqa: BLE001  # the worker tells it and refuses to start
        _send(connection, pickle.dumps(Performed(trace=traceback.format_exc())))
        os._exit(1)
    _send(connection, pickle.dumps(Performed(cpu_seconds=time.process_time())))
    while True:
        _send(connection, _answer(work.get()))


def _answer(message: bytes) -> bytes:
    try:
        call: Call = pickle.loads(message)  # noqa: S301  # our own worker's
    except Exception:  # noqa: BLE001  # told by its text
        done = Performed(trace=traceback.format_exc())
    else:
        done = perform_call(call, {})
    # All that this process has ever used: the worker knows what it has been told of.
    done = replace(done, cpu_seconds=time.process_time())
    return packed(done)


def _listen(connection: socket.socket, work: queue.SimpleQueue[bytes]) -> None:
    while True:
        head = _read(connection, LENGTH.size)
        work.put(_read(connection, LENGTH.unpack(head)[0]))


def _read(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        try:
            more = connection.recv(min(size - len(data), 1 << 20))
        except OSError:
            more = b""
        if not more:
            os._exit(1)
        data += more
    return bytes(data)


def _send(connection: socket.socket, message: bytes) -> None:
    try:
        connection.sendall(LENGTH.pack(len(message)) + message)
    except OSError:
        os._exit(1)


def command(descriptor: int, modules: Sequence[str]) -> list[str]:
    """How the worker starts such a process, with what it can import itself."""
    start = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from {__name__} import main; main({descriptor}, {os.getpid()}, {list(modules)!r})"
    )
    return [sys.executable, "-c", start]


def message(call: Call) -> bytes:
    """Return what asks for one call."""
    body = pickle.dumps(call, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(body)) + body
