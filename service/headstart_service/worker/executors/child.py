"""The process of steps with runs_on="process": makes one call after the other for its worker.

The main thread calls, so that a step may do there what only a main thread can. Another thread reads
the socket, so that this process ends as soon as its worker does.
"""

from __future__ import annotations

import importlib
import os
import pickle
import queue
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ...domain import Progress
from ...domain.errors import StartupError
from ...domain.log_fields import inside
from .child_reports import ChildReports
from .child_socket import LENGTH, end_with, framed
from .remote_call import (
    Call,
    Performed,
    packed,
    perform_call,
)

if TYPE_CHECKING:
    from .child_providers import HostedProviders, Plain


def main(
    descriptor: int,
    parent: int,
    modules: Sequence[str],
    providers: Plain | None = None,
    prelude: Sequence[str] = (),
) -> None:
    """Serve the worker `parent` at the other end of this socket, with these modules imported.

    Calls `prelude` and opens `providers` of its own before. An empty message closes them, and ends
    this process.
    """
    end_with(parent)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    connection = socket.socket(fileno=descriptor)
    work: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, work), name="worker", daemon=True).start()
    try:
        _call(*prelude)
        for module in modules:
            importlib.import_module(module)
    except BaseException:  # noqa: BLE001  # the worker logs it and refuses to start
        _send(connection, pickle.dumps(Performed(trace=traceback.format_exc())))
        os._exit(1)
    hosted = _host(connection, providers)
    identities = hosted.identities if hosted else {}
    ready = Performed(identities, cpu_seconds=time.process_time())
    _send(connection, pickle.dumps(ready))
    while message := work.get():
        _send(connection, _answer(message, partial(_report, connection)))
    if hosted:
        hosted.close()
    os._exit(0)


def _call(function: str = "", *arguments: str) -> None:
    if function:
        module, _, name = function.partition(":")
        getattr(importlib.import_module(module), name)(*arguments)


def _host(connection: socket.socket, providers: Plain | None) -> HostedProviders | None:
    """Open the providers of this process; end it when one cannot be opened."""
    if providers is None:
        return None
    from .child_providers import HostedProviders

    try:
        return HostedProviders(providers)
    except StartupError as error:
        _send(connection, pickle.dumps(Performed(failure=str(error))))
    except BaseException:  # noqa: BLE001  # as above
        _send(connection, pickle.dumps(Performed(trace=traceback.format_exc())))
    os._exit(1)


def _answer(message: bytes, report: Callable[[Progress], None]) -> bytes:
    try:
        call: Call = pickle.loads(message)  # noqa: S301  # our own worker's
    except Exception:  # noqa: BLE001  # reported by its text
        done = Performed(trace=traceback.format_exc())
    else:
        with inside(call.log_fields), ChildReports(report):
            done = perform_call(call, {})
    # All that this process has ever used: the worker subtracts what it has counted.
    done = replace(done, cpu_seconds=time.process_time())
    return packed(done)


def _report(connection: socket.socket, progress: Progress) -> None:
    _send(connection, pickle.dumps(progress))


def _receive(connection: socket.socket, work: queue.SimpleQueue[bytes]) -> None:
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
        connection.sendall(framed(message))
    except OSError:
        os._exit(1)
