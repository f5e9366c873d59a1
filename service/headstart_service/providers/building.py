"""Building a vocabulary: all or nothing, by one process at a time.

Files are written and synced in a directory of their own inside the vocabulary's, so that they are
on the same filesystem also when that is a mounted volume, and then renamed into place, the manifest
removed first and put back last. Killed at any moment, a builder leaves either the vocabulary of
before or none, and its remains are swept up by the next one.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..domain.errors import StartupError
from .model_files import ModelIdentity
from .vocabulary import EMBEDDINGS, FORMAT, MANIFEST, WORDS, Manifest, Progress, ignore_progress

if TYPE_CHECKING:
    from .vocabulary import Encode

_CHUNK = 512
"""Words between two reports of progress: a third of a second."""
_REMAINS = ".building-"
_LOCK = ".lock"

_log = logging.getLogger(__name__)


def build(
    directory: Path,
    words: Sequence[str],
    encode: Encode,
    model: ModelIdentity,
    source: str,
    progress: Progress = ignore_progress,
) -> Manifest:
    """Embed `words` with `encode` and put them into `directory`, in place of what is there.

    Blocks, also while another process builds there. `encode` gives float32 rows of unit length.
    Raises StartupError when the directory cannot be written.
    """
    with exclusive(directory):
        return build_unlocked(directory, words, encode, model, source, progress)


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Be the only process that builds in `directory`; the lock dies with the process.

    Raises StartupError when the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / _LOCK).open("w")
    except OSError as error:
        raise StartupError(
            f"cannot write the vocabulary's directory {directory}: {error.strerror}"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another process that builds in %s", directory)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back


def build_unlocked(
    directory: Path,
    words: Sequence[str],
    encode: Encode,
    model: ModelIdentity,
    source: str,
    progress: Progress,
) -> Manifest:
    """As `build`, for one who holds `exclusive`."""
    for remains in directory.glob(f"{_REMAINS}*"):
        shutil.rmtree(remains, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(prefix=_REMAINS, dir=directory) as name:
            work = Path(name)
            manifest = _write(work, words, encode, model, source, progress)
            _put_in_place(work, directory)
    except OSError as error:
        raise StartupError(
            f"cannot write the vocabulary into {directory}: {error.strerror or error}"
        ) from error
    return manifest


def _write(
    work: Path,
    words: Sequence[str],
    encode: Encode,
    model: ModelIdentity,
    source: str,
    progress: Progress,
) -> Manifest:
    matrix_file = work / EMBEDDINGS
    dimension = _embed(matrix_file, words, encode, progress)
    text = "".join(f"{word}\n" for word in words).encode()
    with (work / WORDS).open("wb") as file:
        file.write(text)
    with matrix_file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    manifest = Manifest(
        format=FORMAT,
        model=model.name,
        model_sha256=model.sha256,
        count=len(words),
        dimension=dimension,
        source=source,
        words_sha256=hashlib.sha256(text).hexdigest(),
        embeddings_sha256=digest,
        embeddings_bytes=matrix_file.stat().st_size,
    )
    (work / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    for name in (EMBEDDINGS, WORDS, MANIFEST):
        _sync(work / name)
    return manifest


def _embed(path: Path, words: Sequence[str], encode: Encode, progress: Progress) -> int:
    """Write the rows of all `words`, in their order. Returns their length."""
    import numpy as np

    # By length, because a batch takes as long as its longest text; stable, so that it is the same
    # on every machine.
    order = sorted(range(len(words)), key=lambda place: len(words[place]))
    dimension = int(encode([words[0]]).shape[1])
    shape = (len(words), dimension)
    matrix = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    with path.open("r+b") as file:
        # A full disk is an error here; once the mapping is written to, it is a SIGBUS.
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    progress(0, len(words))
    for start in range(0, len(words), _CHUNK):
        places = order[start : start + _CHUNK]
        matrix[places] = encode([words[place] for place in places])
        progress(start + len(places), len(words))
    matrix.flush()
    return dimension


def _put_in_place(work: Path, directory: Path) -> None:
    (directory / MANIFEST).unlink(missing_ok=True)
    _sync(directory)
    for name in (EMBEDDINGS, WORDS):
        (work / name).replace(directory / name)
    _sync(directory)
    (work / MANIFEST).replace(directory / MANIFEST)
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
