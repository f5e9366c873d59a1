"""What turns texts into vectors in a worker, and how it is loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .library_encoder import LibraryEncoder
from .model_files import ModelIdentity, short, source_directory
from .onnx_encoder import OnnxEncoder
from .prepared_model import ModelNotPrepared, open_prepared

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)


class Encoder(Protocol):
    """Turns texts into vectors of unit length. Blocks; not to be shared between threads."""

    @property
    def model(self) -> str:
        """The name that it was loaded by."""
        ...

    @property
    def model_identity(self) -> ModelIdentity:
        """The same, with the digest of the files that it was made from."""
        ...

    @property
    def dimension(self) -> int:
        """The length of its vectors."""
        ...

    @property
    def threads(self) -> int:
        """How many threads work on a batch, the caller's among them."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed each text as a float32 row of unit length: shape (len(texts), dimension)."""
        ...


def load_encoder(model: str, models: Path, *, threads: int = 1) -> Encoder:
    """Load `model` (a name or a path) as it was prepared in `models`.

    It computes with `threads` threads. Blocks: 0.5 s, or 5 s for a model that has no export.
    Raises ModelNotPrepared, with the command that prepares it; StartupError when it does not load.
    """
    prepared = open_prepared(models, model)
    manifest = prepared.manifest
    encoder: Encoder
    if manifest.engine == "onnxruntime":
        encoder = OnnxEncoder(prepared, threads=threads)
    else:
        directory = source_directory(model, manifest.revision)
        encoder = LibraryEncoder.load(model, directory, threads=threads)
        if encoder.model_identity != prepared.identity:
            raise ModelNotPrepared(model, "its files have changed since it was prepared")
    _log.info(
        "loaded %s, sha256 %s: %d dimensions, %d threads, on %s%s",
        model,
        short(prepared.identity.sha256),
        encoder.dimension,
        threads,
        manifest.engine,
        f", which takes more memory and time: {manifest.reason}" if manifest.reason else "",
    )
    return encoder
