"""Prepares a model for workers: `headstart model prepare`. Brings torch."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import uuid
import warnings
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from ..base.extras import install
from ..domain.errors import HeadstartError, PackageMissing, StartupError
from .directory_lock import exclusive, sync
from .library_encoder import LibraryEncoder
from .model_files import ModelMissing, fetch, full_name, local_directory, source_directory
from .model_samples import sample_texts
from .onnx_encoder import OnnxEncoder
from .prepared_model import (
    FORMAT,
    MANIFEST,
    ONNX,
    TOKENIZER,
    WEIGHTS,
    ModelNotPrepared,
    Prepared,
    PreparedModel,
    directory_of,
    open_prepared,
    read_manifest,
)

LARGEST_DIFFERENCE: Final = 1e-5
"""Of any number of an export's vectors from those of `SentenceTransformer.encode`."""
_LONGEST_SAMPLE: Final = 1024
"""Words of a sample: attention takes memory by the square of them."""
_OPSET: Final = 17
_REMAINS: Final = ".preparing-"
_EXPORTS: Final = "export-"
_TRACED: Final = "traced"
_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
_PACKAGES: Final = (
    *("headstart", "onnx", "onnxruntime", "sentence-transformers"),
    *("tokenizers", "torch", "transformers"),
)


class NotExportable(HeadstartError):
    """A model has no export whose vectors are its own."""


def prepare(model: str, models: Path, *, revision: str = "", threads: int = 1) -> Prepared:
    """Export `model` (a name or a path) into its directory in `models`, and return what is there.

    Downloads a model of the hub, at `revision`, that is not on this machine. A model that cannot be
    exported stays one of sentence-transformers, and the manifest has the reason. Blocks for
    seconds, also while another process prepares the same model. Nothing is replaced when it fails.
    Raises StartupError when there is no such model, its files are not upstream's, or the directory
    cannot be written.
    """
    if revision and local_directory(model) is not None:
        raise StartupError(
            f"--revision {revision}: the model {model!r} is a directory, which has no revisions: "
            "leave the option out"
        )
    directory = directory_of(models, model)
    with exclusive(directory, "prepared model"):
        for remains in directory.glob(f"{_REMAINS}*"):
            shutil.rmtree(remains, ignore_errors=True)
        library = LibraryEncoder.load(model, _located(model, revision), threads=threads)
        try:
            with tempfile.TemporaryDirectory(prefix=_REMAINS, dir=directory) as name:
                work = Path(name)
                _put_in_place(directory, work, _write(work, library, revision, threads))
        except OSError as error:
            raise StartupError(
                f"cannot write the prepared model into {directory}: {error.strerror or error}"
            ) from error
    return open_prepared(models, model)


def _package_versions() -> dict[str, str]:
    """Return the versions of what prepares a model here."""
    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _located(model: str, revision: str) -> Path:
    """Return the directory of the model's files, after downloading them if they are not here."""
    with suppress(ModelMissing):
        return source_directory(model, revision)
    try:
        return fetch(model, revision)
    except ImportError as error:
        raise PackageMissing(
            f"the model {model!r} needs {error.name}, which is not installed: {install('model')}"
        ) from error
    # The library raises what it likes for an answer that is no hub's.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        at = f" at revision {revision!r}" if revision else ""
        raise StartupError(
            f"HEADSTART_MODEL: the model {model!r}{at} is no directory here, and Hugging Face does "
            f"not give it: {reason}"
        ) from error


def _write(work: Path, library: LibraryEncoder, revision: str, threads: int) -> PreparedModel:
    """Write the export into `work`, unless there can be none. Returns its manifest."""
    facts: dict[str, Any] = {
        "format": FORMAT,
        "model": full_name(library.model),
        "model_sha256": library.model_identity.sha256,
        "model_files": dict(library.digests),
        "revision": revision,
        "dimension": library.dimension,
        "versions": _package_versions(),
    }
    try:
        export = _export(work, library)
        manifest = PreparedModel(engine="onnxruntime", reason="", **facts, **export)
        prepared = Prepared(library.model_identity, manifest, work)
        difference = _difference(library, OnnxEncoder(prepared, threads=threads))
    except NotExportable as error:
        reason = str(error)
    except ModelNotPrepared as error:
        reason = error.problem
    else:
        return manifest.model_copy(update={"largest_difference": difference})
    return PreparedModel(engine="sentence-transformers", reason=reason, **facts)


def _export(work: Path, library: LibraryEncoder) -> dict[str, Any]:
    """Write graph and tokenizer into `work`. Returns the manifest's fields about them."""
    tokenizer = library.transformer.tokenizer
    _write_tokenizer(work / TOKENIZER, library)
    given = tokenizer(["warm", "some more words"], padding=True, return_tensors="pt")
    if unknown := set(given) - set(_INPUTS):
        raise NotExportable(f"it takes inputs that workers do not make: {', '.join(unknown)}")
    names = tuple(name for name in _INPUTS if name in given)
    inputs = _write_graph(work, library, names, tuple(given[name] for name in names))
    prompts, chosen = library.transformer.prompts, library.transformer.default_prompt_name
    return {
        "inputs": inputs,
        "pad_id": tokenizer.pad_token_id or 0,
        "pads_left": tokenizer.padding_side == "left",
        "prompt": prompts[chosen] if chosen else "",
        "folder": f"{_EXPORTS}{uuid.uuid4().hex}",
        "files": {path.name: _sha256(path) for path in sorted(work.iterdir())},
    }


def _write_tokenizer(path: Path, library: LibraryEncoder) -> None:
    from tokenizers import Tokenizer

    original = library.transformer.tokenizer
    backend = getattr(original, "backend_tokenizer", None)
    if backend is None:
        raise NotExportable("its tokenizer has no form for the package tokenizers")
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.no_padding()
    longest = library.transformer.max_seq_length
    if longest:
        tokenizer.enable_truncation(longest, direction=original.truncation_side)
    # Its own method raises a bare Exception for a full disk.
    path.write_text(tokenizer.to_str(), encoding="utf-8")


def _write_graph(
    work: Path, library: LibraryEncoder, names: tuple[str, ...], example: tuple[Any, ...]
) -> tuple[str, ...]:
    """Write the graph into `work`. Returns those of the inputs `names` that it uses."""
    import torch

    class Graph(torch.nn.Module):
        """Inputs by position, and a vector of unit length out."""

        def __init__(self) -> None:
            super().__init__()
            self.model = library.transformer

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            vectors = self.model(dict(zip(names, inputs, strict=True)))["sentence_embedding"]
            # A model may be set to give the first numbers alone (`truncate_dim`).
            return torch.nn.functional.normalize(vectors[:, : library.dimension], p=2, dim=1)

    traced = work / _TRACED
    axes = {name: {0: "texts", 1: "tokens"} for name in names} | {"vectors": {0: "texts"}}
    traced.mkdir()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The tracer warns of each branch in a model's code; the comparison shows what is right.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Graph().eval(),
                example,
                str(traced / ONNX),
                input_names=list(names),
                output_names=["vectors"],
                dynamic_axes=axes,
                opset_version=_OPSET,
                # The newer exporter needs onnxscript, takes 20 times as long and computes the same.
                dynamo=False,
            )
        import onnx

        # Weights in a file of their own are mapped, not read: 45 MB less, and loaded twice as fast.
        exported = onnx.load(traced / ONNX)
        # The tracer drops what a model ignores, as DistilBERT does token_type_ids.
        used = {each.name for each in exported.graph.input}
        onnx.save_model(
            exported,
            work / ONNX,
            save_as_external_data=True,
            location=WEIGHTS,
        )
    except ImportError as error:
        raise PackageMissing(
            f"exporting needs {error.name}, which is not installed: {install('model')}"
        ) from error
    except OSError:
        raise
    except Exception as error:  # a model's own code raises what it likes
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise NotExportable(f"torch.onnx.export fails: {reason}") from error
    finally:
        shutil.rmtree(traced)
    return tuple(name for name in names if name in used)


def _difference(library: LibraryEncoder, encoder: OnnxEncoder) -> float:
    """Return the largest difference of a number. Raises NotExportable above the limit."""
    import numpy as np

    longest = library.transformer.max_seq_length or _LONGEST_SAMPLE
    texts = sample_texts(min(longest, _LONGEST_SAMPLE))
    expected = library.encode(texts)
    broken = ~np.isfinite(expected).all(axis=1)
    if broken.any():
        raise StartupError(
            f"HEADSTART_MODEL: {library.model} gives NaN or infinity for "
            f"{texts[int(broken.argmax())][:40]!a}: its weights are damaged"
        )
    difference = np.abs(expected - encoder.encode(texts)).max(axis=1)
    worst = int(np.nan_to_num(difference, nan=np.inf).argmax())
    if not difference[worst] <= LARGEST_DIFFERENCE:
        raise NotExportable(
            f"vectors of its export differ by up to {difference[worst]:.2g} (at most "
            f"{LARGEST_DIFFERENCE:g} is allowed), for {texts[worst][:40]!a}"
        )
    return float(difference[worst])


def _put_in_place(directory: Path, work: Path, manifest: PreparedModel) -> None:
    """Replace the manifest, after the export is on the disk."""
    kept = {manifest.folder}
    with suppress(ModelNotPrepared):
        # A process that has just read the manifest of before still opens its files.
        kept.add(read_manifest(directory, manifest.model).folder)
    if manifest.folder:
        for name in manifest.files:
            (work / name).chmod(0o644)
            sync(work / name)
        work.chmod(0o755)  # the image's user is not the one that prepares
        sync(work)
        work.rename(directory / manifest.folder)
        work.mkdir()
    path = work / MANIFEST
    path.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    sync(path)
    path.replace(directory / MANIFEST)
    sync(directory)
    for old in directory.glob(f"{_EXPORTS}*"):
        if old.name not in kept:
            shutil.rmtree(old, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
