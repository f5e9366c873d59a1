"""A prepared model: what workers load, made once by `headstart model prepare`.

    manifest.json                    what it is: a `PreparedModel`
    export-ID/model.onnx             transformer, pooling and normalisation in one graph
    export-ID/weights.bin            its weights, which processes of a machine share
    export-ID/tokenizer.json         texts to tokens, with the model's truncation

The manifest is replaced atomically, after the files that it names. So a directory with a manifest
is whole, and a process that reads meanwhile gets the old export or the new one. Importing this
module needs neither numpy nor onnxruntime.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..domain.errors import StartupError
from .model_files import ModelIdentity, full_name, identify, local_directory, upstream_difference

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
ONNX: Final = "model.onnx"
WEIGHTS: Final = "weights.bin"
TOKENIZER: Final = "tokenizer.json"
_MAX_MANIFEST: Final = 4 * 1024 * 1024
"""Bytes: a directory of 30,000 files."""
_TRIES: Final = 3
"""Of opening while another process prepares: one is enough unless two follow each other."""

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$")]


class ModelNotPrepared(StartupError):
    """There is no usable prepared model; the message has the command that makes it."""

    def __init__(self, model: str, reason: str) -> None:
        self.problem = reason
        self.reason = f"{model} is not prepared: {reason}"
        self.command = f"`headstart model prepare {shlex.quote(model)}`"
        super().__init__(f"HEADSTART_MODEL: {self.reason}: run {self.command}")


class PreparedModel(BaseModel):
    """The manifest: where an export is from, and how texts become its inputs."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal[1]
    model: Annotated[str, Field(min_length=1)]
    """The full name, or the directory, that was prepared."""
    model_sha256: _Sha256
    """The digest of all files that it was loaded from: `ModelIdentity.sha256`."""
    model_files: dict[str, _Sha256]
    """The digest of each of these files."""
    revision: str = ""
    """The revision of a model of the hub that was asked for; empty: the usual one."""
    engine: Literal["onnxruntime", "sentence-transformers"]
    """What computes it; the second where it could not be exported."""
    reason: str
    """Why it could not be exported; empty where it was."""
    dimension: Annotated[int, Field(ge=1, le=65_536)]
    inputs: tuple[Literal["input_ids", "attention_mask", "token_type_ids"], ...] = ()
    pad_id: Annotated[int, Field(ge=0)] = 0
    pads_left: bool = False
    prompt: str = ""
    """What stands before each text."""
    folder: Annotated[str, Field(pattern=r"^(export-[0-9a-f]{32})?$")] = ""
    files: dict[_FileName, _Sha256] = {}
    """The digest of each file of the export."""
    largest_difference: Annotated[float, Field(ge=0)] = 0.0
    """Of a number of its vectors from sentence-transformers' when it was prepared."""
    versions: dict[str, str] = {}
    """What prepared it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared model on this machine."""

    identity: ModelIdentity
    manifest: PreparedModel
    folder: Path
    """The export's directory."""


def directory_of(models: Path, model: str) -> Path:
    """Return the directory in `models` for `model`, a name or the path of a directory."""
    full = full_name(model)
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", full)[-60:].strip("-.")
    # Two names that read alike stay apart.
    return models / f"{readable}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"


def open_prepared(models: Path, model: str) -> Prepared:
    """Return the prepared `model`, after comparing every file with the manifest's digest.

    Reads 0.1 s for 90 MB. A directory's own files are compared, too. Raises ModelNotPrepared.
    """
    directory = directory_of(models, model)
    for _ in range(_TRIES):
        manifest = read_manifest(directory, model)
        _compare_source(model, manifest)
        problem = _damage(directory / manifest.folder, manifest)
        if not problem:
            identity = ModelIdentity(model, manifest.model_sha256)
            return Prepared(identity, manifest, directory / manifest.folder)
        if read_manifest(directory, model) == manifest:  # no other process replaced it meanwhile
            raise ModelNotPrepared(model, problem)
    raise ModelNotPrepared(model, f"{directory} is being replaced over and over")


def prepared_identity(models: Path, model: str) -> ModelIdentity:
    """Return the identity of the prepared `model` by its manifest alone.

    Raises ModelNotPrepared.
    """
    manifest = read_manifest(directory_of(models, model), model)
    return ModelIdentity(model, manifest.model_sha256)


def read_manifest(directory: Path, model: str) -> PreparedModel:
    """Return the manifest in `directory`, which `model` must be of. Raises ModelNotPrepared."""
    path = directory / MANIFEST
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_MANIFEST)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelNotPrepared(model, f"there is no {path}") from error
    except OSError as error:
        raise ModelNotPrepared(model, f"cannot read {path}: {error.strerror}") from error
    try:
        manifest = PreparedModel.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        problem = f"{path} is no manifest of format {FORMAT}: {field}: {first['msg']}"
        raise ModelNotPrepared(model, problem) from error
    if manifest.model != full_name(model):
        raise ModelNotPrepared(model, f"{path} is of {manifest.model!r}")
    if difference := upstream_difference(model, manifest.model_files):
        raise ModelNotPrepared(model, difference)
    return manifest


def _compare_source(model: str, manifest: PreparedModel) -> None:
    """Refuse an export of files that were replaced since; names of a hub are what was prepared."""
    if local_directory(model) is not None and identify(model).sha256 != manifest.model_sha256:
        raise ModelNotPrepared(model, "its files have changed since it was prepared")


def _damage(folder: Path, manifest: PreparedModel) -> str:
    """Return what is wrong with the files of an export, or nothing."""
    if manifest.engine != "onnxruntime":
        return ""
    if not manifest.folder or not {ONNX, WEIGHTS, TOKENIZER} <= manifest.files.keys():
        return f"the manifest does not name {ONNX}, {WEIGHTS} and {TOKENIZER}"
    for name, expected in manifest.files.items():
        path = folder / name
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"cannot read {path}: {error.strerror}"
        if found != expected:
            return f"{path} is damaged: its SHA-256 is not the manifest's"
    return ""
