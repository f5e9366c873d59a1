"""Create, close and lock the data directory of an embedded Valkey."""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final

from ..domain.errors import StartupError

STOP_SECONDS: Final = 10.0
"""Seconds that a Valkey has to end before it is killed."""
_ASK_AGAIN: Final = 0.02


def make_directory(data_dir: Path) -> None:
    """Create the directory where it is missing. Raises StartupError."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StartupError(
            f"HEADSTART_DATA_DIR: cannot use {data_dir}: {error.strerror}"
        ) from error


def make_private(data_dir: Path) -> None:
    """Close the directory to other users: its socket asks for no password, its files hold all data.

    Raises StartupError for an open directory that belongs to another user or holds other things.
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
async def locked(data_dir: Path) -> AsyncIterator[int]:
    """Hold the directory's lock and yield its file descriptor.

    Waits for a dead owner's Valkey to end. Raises StartupError while a live process holds the lock.
    """
    with (data_dir / "lock").open("a+") as lock:
        clock = asyncio.get_running_loop().time
        patience = clock() + STOP_SECONDS
        while not _try_lock(lock):
            lock.seek(0)
            owner = lock.read().strip()
            # The owner is dead, so its Valkey ends soon.
            if _is_alive(owner) or clock() > patience:
                raise StartupError(
                    f"HEADSTART_DATA_DIR: another server (process {owner or 'unknown'}) uses "
                    f"{data_dir}; stop it, or give this one another directory or a "
                    "HEADSTART_REDIS_URL"
                )
            await asyncio.sleep(_ASK_AGAIN)
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
