"""The vocabulary: words with their embeddings, built once, kept in a directory, memory-mapped.

    embeddings.npy   float32, C order, shape (count, dimension), rows of unit length
    words.txt        UTF-8, one a line, in the rows' order
    manifest.json    what the two are: a `Manifest`

The manifest is written last and removed first, so a directory that has one is whole. It holds the
model's name and the digest of its files. So vectors of replaced weights are never mixed with those
of the loaded weights. Importing this module, and `is_current`, needs neither numpy nor
torch: the CLI asks first whether there is anything to do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..domain.errors import HeadstartError
from .model_files import ModelIdentity, short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = 3
EMBEDDINGS, WORDS, MANIFEST = "embeddings.npy", "words.txt", "manifest.json"
_MAX_MANIFEST = 65_536
_TRIES = 3
"""Of opening while another process builds: one is enough unless two builds follow each other."""


class VocabularyUnusable(HeadstartError):
    """What a directory holds is not the vocabulary that was asked for: build it."""


class VocabularyMissing(VocabularyUnusable):
    """There is no finished vocabulary."""


class VocabularyMismatch(VocabularyUnusable):
    """It is whole, and of another format, model or source."""


class VocabularyDamaged(VocabularyUnusable):
    """Its files do not agree with its manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a vocabulary's files are."""

    format: int
    model: str
    model_sha256: str
    count: int
    dimension: int
    source: str
    words_sha256: str
    embeddings_sha256: str
    embeddings_bytes: int

    def to_json(self) -> str:
        """As the file holds it."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """The manifest of `directory`. Raises VocabularyUnusable when there is no valid one."""
        path = directory / MANIFEST
        try:
            with path.open("rb") as file:
                raw = json.loads(file.read(_MAX_MANIFEST))
        except FileNotFoundError as error:
            raise VocabularyMissing(f"there is no {path}") from error
        except NotADirectoryError as error:
            raise VocabularyMissing(f"{directory} is not a directory") from error
        except OSError as error:
            raise VocabularyDamaged(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise VocabularyDamaged(f"{path} is not JSON") from error
        if not isinstance(raw, dict):
            raise VocabularyDamaged(f"{path} holds no manifest")
        if raw.get("format") != FORMAT:
            raise VocabularyMismatch(f"its format is {raw.get('format')!r}, not {FORMAT}")
        fields = {name: raw.get(name) for name in cls.__dataclass_fields__}
        for name, field in cls.__dataclass_fields__.items():
            value = fields[name]
            kind = int if field.type == "int" else str
            if not isinstance(value, kind) or isinstance(value, bool):
                raise VocabularyDamaged(f"{path} has no valid {name}")
        return cls(**fields)  # type: ignore[arg-type]  # the loop above has checked each


@dataclass(frozen=True)
class Vocabulary:
    """Words and their vectors, which no step can change.

    `matrix` is float32, shape (len(words), d), mapped read-only.
    """

    words: tuple[str, ...]
    matrix: NDArray[np.float32]
    manifest: Manifest

    @property
    def identity(self) -> str:
        """The digests of the words, with their order, and of the model's files.

        Not of the vectors: machines of different processors give them different last bits.
        """
        made = self.manifest
        return f"words-sha256:{made.words_sha256},model-sha256:{made.model_sha256}"

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Each word's place."""
        return MappingProxyType({word: place for place, word in enumerate(self.words)})


def is_current(directory: Path, model: ModelIdentity, source: str | None = None) -> bool:
    """Whether `directory` holds a whole vocabulary of `model` (and of `source`, a `Source.name`).

    Fast and cheap: reads the manifest and the words, and only sizes the embeddings.
    """
    try:
        _check(directory, model, source)
    except VocabularyUnusable:
        return False
    return True


def examined(directory: Path, model: ModelIdentity | None) -> Manifest:
    """Return the manifest of a vocabulary, and verify every byte by it; needs no numpy.

    With `model` None, of any model. Raises a VocabularyUnusable.
    """
    manifest, _ = _check(directory, model, None)
    _check_embeddings(directory, manifest)
    return manifest


def open_vocabulary(
    directory: Path, model: ModelIdentity, source: str | None = None, *, thorough: bool = False
) -> Vocabulary:
    """Open what `build` has written for `model` (and from `source`, a `Source.name`).

    `thorough` reads every embedding and compares their digest too. Raises VocabularyMissing,
    VocabularyMismatch or VocabularyDamaged, each a VocabularyUnusable.
    """
    for _ in range(_TRIES):
        manifest, words = _check(directory, model, source)
        matrix = _map(directory, manifest, thorough=thorough)
        # A builder removes the manifest before it touches the rest. The same one as before, after
        # everything was opened, proves that all of it belongs together.
        if Manifest.read(directory) == manifest:
            return Vocabulary(tuple(words), matrix, manifest)
    raise VocabularyDamaged(f"{directory} is being rebuilt over and over")


def _check(
    directory: Path, model: ModelIdentity | None, source: str | None
) -> tuple[Manifest, list[str]]:
    manifest = Manifest.read(directory)
    # Equal files are one model, by whatever name or path they are known.
    if model is not None and manifest.model_sha256 != model.sha256:
        raise VocabularyMismatch(
            f"it is of the model {manifest.model} with sha256 {short(manifest.model_sha256)}, not "
            f"of {model.name} with {short(model.sha256)}"
        )
    if source is not None and manifest.source != source:
        raise VocabularyMismatch(f"its words are of {manifest.source!r}, not {source!r}")
    try:
        content = (directory / WORDS).read_bytes()
        size = (directory / EMBEDDINGS).stat().st_size
    except OSError as error:
        raise VocabularyDamaged(f"cannot read {error.filename}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != manifest.words_sha256:
        raise VocabularyDamaged(f"{WORDS} is not what the manifest describes")
    try:
        words = content.decode().split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise VocabularyDamaged(f"{WORDS} is not UTF-8") from error
    if len(words) != manifest.count:
        raise VocabularyDamaged(f"{WORDS} has {len(words)} words, not {manifest.count}")
    if size != manifest.embeddings_bytes:
        raise VocabularyDamaged(f"{EMBEDDINGS} has {size} bytes, not {manifest.embeddings_bytes}")
    return manifest, words


def _check_embeddings(directory: Path, manifest: Manifest) -> None:
    path = directory / EMBEDDINGS
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise VocabularyDamaged(f"cannot read {path}: {error.strerror}") from error
    if found != manifest.embeddings_sha256:
        raise VocabularyDamaged(f"{EMBEDDINGS} is not what the manifest describes")


def _map(directory: Path, manifest: Manifest, *, thorough: bool) -> NDArray[np.float32]:
    import numpy as np

    path = directory / EMBEDDINGS
    try:
        if thorough:
            _check_embeddings(directory, manifest)
        # Not np.load: that opens archives, too.
        mapped = np.lib.format.open_memmap(path, mode="r")
    except VocabularyDamaged:
        raise
    except OSError as error:
        raise VocabularyDamaged(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:
        # Numpy reads the header as Python text: tokenize, ast and mmap raise errors of their own.
        raise VocabularyDamaged(f"{path} is not an array file") from error
    shape = (manifest.count, manifest.dimension)
    if mapped.dtype != np.float32 or mapped.shape != shape or not mapped.flags.c_contiguous:
        raise VocabularyDamaged(
            f"{EMBEDDINGS} is {mapped.dtype} {mapped.shape}, not float32 {shape}"
        )
    # A plain array over the mapping: numpy's memmap class makes every slice slower.
    matrix: NDArray[np.float32] = np.asarray(mapped)
    return matrix
