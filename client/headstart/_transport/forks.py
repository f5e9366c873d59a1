"""Keeps gRPC usable across forks, and names the processes in which it cannot run.

gRPC's threads do not survive a fork. A child that uses a channel of its parent hangs or crashes.
So does one that opens a channel of its own if gRPC ran in the parent. Therefore gRPC is stopped
before each fork: every connection *rests*. It closes its channel, and gRPC ends its threads. Behind
the fork, parent and child open new channels with their next call. The parent makes the calls
anew that were under way: all of them are idempotent.

A fork cannot stop another library's gRPC, nor calls on the loop whose own thread forks. Connections
of such a child raise UnusableProcess before they touch gRPC.
"""

from __future__ import annotations

import _thread
import concurrent.futures.thread  # noqa: F401  (see the end of this module)
import gc
import logging  # noqa: F401
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from headstart._errors import UnusableProcess

T = TypeVar("T")

# In seconds: how long connections, and then gRPC's threads, may take to end before a fork. The
# client gives up a connection to a server that hangs after one second, and then its threads end.
_REST_LIMIT: Final = 2.0
# In seconds: how long gRPC's threads may take before a search for garbage that holds a channel.
_GARBAGE_AFTER: Final = 0.05
# In seconds: the pause between two checks.
PAUSE: Final = 0.001

# grpc.aio's only Python thread, by the name that `threading` derives from its function.
_POLLER: Final = "(_poll_wrapper)"
# How the names of gRPC's own threads begin on Linux.
_NATIVE: Final = ("grpc_", "event_engine", "lifeguard", "default-exec", "resolver-exec")
_TASKS: Final = Path("/proc/self/task")

# Libraries that turn threads into coroutines of their own; gRPC's poller then blocks all of them.
_GREEN: Final = frozenset({"gevent", "eventlet"})

_FORKED: Final = (
    "this process was forked while gRPC ran in its parent, by another library or in calls of the "
    "event loop that forked: close what uses gRPC before the fork, fork from another thread than "
    "the loop's, or start processes with the method 'spawn'"
)


class Resting(Protocol):
    """A connection that may have an open channel."""

    def rest(self) -> threading.Event | None:
        """Begin to close the channel. Return what is set at the end; None: nothing is closed."""
        ...

    def forked(self) -> None:
        """Forget the parent's channel, in the child. No other thread exists."""
        ...


class ForkLock:
    """A lock that is free in a forked child, whichever thread of the parent held it."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        """Wait for the lock."""
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        """Release it."""
        self._lock.release()

    def renew(self) -> None:
        """Replace a lock that a thread of the parent may hold."""
        self._lock = threading.Lock()


_locks: weakref.WeakSet[ForkLock] = weakref.WeakSet()
_open: weakref.WeakSet[Any] = weakref.WeakSet()
_kept: list[object] = []
_lock: Final = ForkLock()
_forks = 0
"""Forks that threads of this process are about to make."""
_grpc_ran = False
"""Whether gRPC ran at the fork that this thread is about to make."""
_unusable = ""
"""Why gRPC cannot run in this process, since a fork; empty if it can."""


def check() -> None:
    """Raise UnusableProcess if gRPC cannot run in this process."""
    check_threads()
    if _unusable:
        raise UnusableProcess(_unusable)


def check_threads() -> None:
    """Raise UnusableProcess if threads are coroutines here: gRPC would block them all."""
    library = (getattr(_thread.start_new_thread, "__module__", None) or "").partition(".")[0]
    if library in _GREEN:
        message = (
            f"{library} has replaced this process's threads, and gRPC would block all of them for "
            "ever: use real threads or asyncio (gunicorn: --worker-class gthread; Celery: --pool "
            f"threads or prefork), or call Headstart from a process without {library}"
        )
        raise UnusableProcess(message)


def opened(connection: Resting, open_channel: Callable[[], T]) -> T | None:
    """Open a connection's channel; return None while a thread forks: try again then.

    Raises:
        UnusableProcess: gRPC cannot run in this process.
    """
    check()
    with _lock:  # a fork that begins meanwhile waits, and then finds the channel
        if _forks:
            return None
        _open.add(connection)
        return open_channel()


def keep(*inherited: object) -> None:
    """Never free what the parent made: in the child its destructor may hang, or harm the parent."""
    _kept.extend(inherited)


def before_fork() -> None:
    """Rest all connections and wait for the end of gRPC's threads."""
    global _forks, _grpc_ran  # noqa: PLW0603
    with _lock:
        _forks += 1
        beside = _forks > 1
        connections = list(_open)
    ends = time.monotonic() + _REST_LIMIT
    resting = [rested for each in connections if (rested := each.rest()) is not None]
    for rested in resting:
        rested.wait(max(0.0, ends - time.monotonic()))
    if resting or beside:  # another thread's fork may hold connections closed
        _await_end(ends)
    _grpc_ran = _grpc_runs()


def _await_end(ends: float) -> None:
    """Wait until gRPC has no threads; an error in a reference cycle may hold its channel."""
    collect_at = time.monotonic() + _GARBAGE_AFTER
    absent = 0
    # Twice, because a thread that has just begun has no name yet: gRPC ends by another thread.
    while absent < 2 and (now := time.monotonic()) < ends:  # noqa: PLR2004
        if now >= collect_at:
            gc.collect()
            collect_at = ends
        absent = 0 if _grpc_runs() else absent + 1
        time.sleep(PAUSE)


def _grpc_runs() -> bool:
    """Return whether threads of gRPC exist that its own fork handlers do not stop."""
    if any(thread.name.endswith(_POLLER) for thread in threading.enumerate()):
        return True  # gRPC's fork handlers give up, because this thread never pauses
    if os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in {"1", "true", "yes", "t", "y"}:
        return False
    return any(_name(task).startswith(_NATIVE) for task in _tasks())


def _tasks() -> list[Path]:
    try:
        return list(_TASKS.iterdir())
    except OSError:  # not Linux: only the poller can be seen
        return []


def _name(task: Path) -> str:
    try:
        return (task / "comm").read_text()
    except OSError:  # it has ended
        return ""


def after_fork_in_parent() -> None:
    """Let connections open channels again."""
    global _forks  # noqa: PLW0603
    with _lock:
        _forks -= 1


def after_fork_in_child() -> None:
    """Forget the parent's connections, and renew all locks."""
    global _forks, _unusable  # noqa: PLW0603
    for lock in list(_locks):
        lock.renew()
    _forks = 0
    for connection in list(_open):
        connection.forked()
    _open.clear()
    if _grpc_ran:
        _unusable = _FORKED


# Of two modules, the one that registers later acts first. Those imported above without a use take
# locks before a fork. A loop that shall close its channel may wait for one, so they act after this.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=before_fork, after_in_parent=after_fork_in_parent, after_in_child=after_fork_in_child
    )
