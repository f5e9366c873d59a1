"""The provider `storage`: keeps large data outside Redis, in a directory or an object store.

Data lie below the root under the hour at whose end they expire, by their SHA-256. So equal data are
written once, no caller names a file, and a sweep removes whole hours. A bucket's own lifecycle rule
does the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

from ..domain.errors import StartupError, StepFailed
from ..values.references import Reference

log = logging.getLogger(__name__)
T = TypeVar("T")

_HOUR: Final = 3600.0
_PLACE: Final = re.compile(r"\d{6,10}/[0-9a-f]{64}")
"""What stands behind the root: the hour at which it expires, since 1970, and the SHA-256."""
_EXPIRY: Final = re.compile(r"\d{6,10}")
_THREADS: Final = 8
"""Calls at once. They are not the service's own threads: a storage may hang."""
_CHUNK: Final = 1024 * 1024
_WHOLE_WRITES: Final = frozenset(
    {"abfs", "abfss", "adl", "az", "gcs", "gs", "memory", "oci", "s3", "s3a"}
)
"""Where an object is there as a whole or not at all. Elsewhere it is written beside, then moved."""


class FileStorage:
    """Puts data below a root, and gets them by their reference. `open_storage` makes one."""

    identity: Final = ""
    """Results do not depend on where data are kept."""

    def __init__(
        self,
        files: Any,
        root: str,
        url: str,
        *,
        ttl: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep data for `ttl` seconds at least, in fsspec's `files`, where `url` is `root`."""
        self._files = files
        self._root = root.rstrip("/")
        self._url = url.rstrip("/")
        self._ttl = ttl
        self._clock = clock
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage")

    async def put(self, data: bytes | Path) -> Reference:
        """Keep these bytes, or those of a local file, and return their reference."""
        return await self._in_thread(self._put, data)

    async def get(self, reference: Reference) -> bytes:
        """Return the data. Raises StepFailed when they are gone, or are not those of before."""
        return await self._in_thread(self._get, reference)

    def open(self, reference: Reference) -> AbstractContextManager[BinaryIO]:
        """Open the data for reading, in a step that `runs_on="thread"`: this blocks.

        What is read is not compared with the reference. Raises StepFailed when they are gone.
        """
        path = self._path_of(reference)
        try:
            return cast("AbstractContextManager[BinaryIO]", self._files.open(path, "rb"))
        except FileNotFoundError:
            raise _gone(reference) from None

    async def sweep(self) -> int:
        """Remove the data of hours that are over; return how many hours that were."""
        return await self._in_thread(self._sweep)

    def close(self) -> None:
        """Take no more calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, function, *arguments)

    def _path_of(self, reference: Reference) -> str:
        """Return the path of a reference, which a caller may have made. Raises StepFailed."""
        before, _, place = reference.url.partition(f"{self._url}/")
        if before or not _PLACE.fullmatch(place) or not place.endswith(reference.sha256):
            raise StepFailed("the reference is none of this storage", retry=False)
        return f"{self._root}/{place}"

    def _put(self, data: bytes | Path) -> Reference:
        size, sha256 = _measured(data)
        hour = int((self._clock() + self._ttl) // _HOUR) + 1
        place = f"{hour}/{sha256}"
        path = f"{self._root}/{place}"
        if not self._has(path, size):
            self._write(path, data)
        return Reference(url=f"{self._url}/{place}", bytes=size, sha256=sha256)

    def _has(self, path: str, size: int) -> bool:
        try:
            return bool(self._files.info(path)["size"] == size)
        except FileNotFoundError:
            return False

    def _write(self, path: str, data: bytes | Path) -> None:
        files = self._files
        files.makedirs(path.rpartition("/")[0], exist_ok=True)
        protocols = {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)
        whole = bool(protocols & _WHOLE_WRITES)
        written = path if whole else f"{path}.{uuid.uuid4().hex}.part"
        try:
            if isinstance(data, Path):
                files.put_file(str(data), written)
            else:
                files.pipe_file(written, data)
            if not whole:
                files.mv(written, path)
        except BaseException:
            if not whole:
                with suppress(Exception):
                    files.rm_file(written)
            raise

    def _get(self, reference: Reference) -> bytes:
        with self.open(reference) as file:
            data = file.read(reference.bytes + 1)
        if _measured(data) != (reference.bytes, reference.sha256):
            raise StepFailed("the stored data are not those of the reference", retry=False)
        return data

    def _sweep(self) -> int:
        now = int(self._clock() // _HOUR)
        removed = 0
        with suppress(FileNotFoundError):
            for path in self._files.ls(self._root, detail=False):
                hour = path.rstrip("/").rpartition("/")[2]
                if _EXPIRY.fullmatch(hour) and int(hour) <= now:
                    with suppress(FileNotFoundError):  # another worker sweeps, too
                        self._files.rm(path, recursive=True)
                        removed += 1
        return removed


@asynccontextmanager
async def open_storage(
    url: str, *, ttl: float, clock: Callable[[], float] = time.time
) -> AsyncIterator[FileStorage]:
    """Open a storage below `url`, and sweep it every hour while the context is open.

    Raises StartupError for a URL that cannot be used, and ImportError without fsspec or the package
    of its protocol.
    """
    from fsspec.core import url_to_fs

    if not re.match(r"[a-z0-9]+://.", url):
        raise StartupError("HEADSTART_STORAGE must be a URL, such as file:///srv/headstart")
    try:
        files, root = await asyncio.to_thread(url_to_fs, url)
    except ValueError as error:
        known = "such as file:///srv/headstart or s3://bucket/headstart"
        raise StartupError(f"HEADSTART_STORAGE must be a URL that fsspec knows, {known}") from error
    if not root.strip("/"):
        raise StartupError("HEADSTART_STORAGE must name a directory or bucket, not the root of all")
    storage = FileStorage(files, root, url, ttl=ttl, clock=clock)
    sweeping = asyncio.create_task(_sweep_hourly(storage), name="storage sweep")
    try:
        yield storage
    finally:
        sweeping.cancel()
        await asyncio.wait({sweeping})
        storage.close()


async def _sweep_hourly(storage: FileStorage) -> None:
    while True:
        try:
            await storage.sweep()
        except Exception as error:  # noqa: BLE001  # a storage that is away must end no worker
            log.warning("the storage was not swept: %s", type(error).__name__)
        await asyncio.sleep(_HOUR)


def _measured(data: bytes | Path) -> tuple[int, str]:
    """Return the number of bytes and their SHA-256."""
    if isinstance(data, bytes):
        return len(data), hashlib.sha256(data).hexdigest()
    size, digest = 0, hashlib.sha256()
    with data.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            digest.update(chunk)
    return size, digest.hexdigest()


def _gone(reference: Reference) -> StepFailed:
    return StepFailed(f"the data {reference.sha256[:12]} are not stored any more", retry=False)
