"""Building a vocabulary: all or nothing, by one process at a time.

Files are written and synced in a directory of their own inside the vocabulary's. So they are on the
same filesystem, also when that is a mounted volume. Then they are renamed into place: the manifest
is removed first and put back last. Killed at any moment, a builder leaves either the vocabulary of
before or none, and its remains are swept up by the next one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..domain.errors import StartupError
from .directory_lock import exclusive, sync
from .model_files import ModelIdentity
from .vocabulary import (
    EMBEDDINGS,
    FORMAT,
    MANIFEST,
    WORDS,
    Manifest,
    Vocabulary,
    VocabularyUnusable,
    open_vocabulary,
)
from .words import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Encode = Callable[[Sequence[str]], NDArray[np.float32]]

Progress = Callable[[int, int], None]
"""Receives how many words are embedded, and how many there are."""

_CHUNK = 512
"""Words between two reports of progress: a third of a second."""
_REMAINS = ".building-"

_log = logging.getLogger(__name__)


def ignore_progress(done: int, total: int) -> None:
    """Show no progress."""


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
    with exclusive(directory, "vocabulary"):
        return _build(directory, words, encode, model, source, progress)


def ensure_vocabulary(
    directory: Path,
    model: ModelIdentity,
    source: Source | None,
    encode: Encode,
    progress: Progress = ignore_progress,
) -> Vocabulary:
    """Open the vocabulary in `directory`, and build it before if it is not there or not usable.

    `model` is the loaded one, whose `encode` embeds the words. `source` None takes whatever words
    there are, and the default ones to build. Of processes that come here at once one builds, and
    the others wait for it. Blocks. Raises StartupError when it cannot be built.
    """
    wanted = None if source is None else source.name
    try:
        return open_vocabulary(directory, model, wanted)
    except VocabularyUnusable as reason:
        _log.info("no vocabulary to use: %s", reason)
    with exclusive(directory, "vocabulary"):
        try:
            return open_vocabulary(directory, model, wanted)  # another process may have built it
        except VocabularyUnusable as reason:
            _log.info("building the vocabulary in %s: %s", directory, reason)
        source = source or Source.frequent()
        _build(directory, source.words(), encode, model, source.name, progress)
    try:
        return open_vocabulary(directory, model, wanted)
    except VocabularyUnusable as error:
        raise StartupError(f"the vocabulary just built is not usable: {error}") from error


def _build(
    directory: Path,
    words: Sequence[str],
    encode: Encode,
    model: ModelIdentity,
    source: str,
    progress: Progress,
) -> Manifest:
    """Build as `build` does, for a caller that holds `exclusive`."""
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
        sync(work / name)
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
    sync(directory)
    for name in (EMBEDDINGS, WORDS):
        (work / name).replace(directory / name)
    sync(directory)
    (work / MANIFEST).replace(directory / MANIFEST)
    sync(directory)
