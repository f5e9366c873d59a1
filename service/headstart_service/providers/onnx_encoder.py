"""A prepared model on ONNX Runtime: texts to vectors, on the CPU, without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..base.extras import install
from ..domain.errors import PackageMissing
from .prepared_model import ONNX, TOKENIZER, ModelNotPrepared, Prepared, PreparedModel

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

_BATCH: Final = 64
"""Texts per forward pass at most."""
_BATCH_TOKENS: Final = 2048
"""Tokens per forward pass at most: what it takes of memory grows with them, its speed does not."""
_WASTE: Final = 10
"""Tokens of padding per forward pass at most: computing them takes as long as another pass."""


class OnnxEncoder:
    """Turns texts into vectors of unit length. Blocks; not to be shared between threads."""

    def __init__(self, prepared: Prepared, *, threads: int = 1) -> None:
        """Load a prepared model for computing with `threads` threads: 0.2 s for 90 MB.

        Raises ModelNotPrepared when its files do not load or do not give what the manifest says.
        """
        self.model_identity = prepared.identity
        self.threads = threads
        self.dimension = prepared.manifest.dimension
        self._manifest = prepared.manifest
        try:
            # Here, where a missing one has a name; without numpy, onnxruntime's error has none.
            import numpy as np  # noqa: F401
            import onnxruntime  # noqa: F401
            import tokenizers  # noqa: F401
        except ImportError as error:
            raise PackageMissing(
                f"embedding needs {error.name}, which is not installed: {install('worker')}"
            ) from error
        try:
            self._tokenizer = _tokenizer(prepared.folder)
            self._session = _session(prepared.folder, threads)
            found = self._compute(self._tokens(["warm"])).shape
        # Both libraries raise what they like: RuntimeError, bare Exception, ValueError.
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelNotPrepared(self.model, f"its export does not load: {reason}") from error
        if found != (1, self.dimension):
            reason = f"its export gives {found[-1]} numbers, its manifest says {self.dimension}"
            raise ModelNotPrepared(self.model, reason)

    @property
    def model(self) -> str:
        """The name that it was loaded by."""
        return self.model_identity.name

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed each text as a float32 row of unit length: shape (len(texts), dimension).

        A row is the same to 1e-6 whatever it is computed with, on any processor: see
        docs/decisions/0004-reproducible-embeddings.md.
        """
        import numpy as np

        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        tokens = self._tokens(texts)
        for rows in _batches([len(each) for each in tokens]):
            vectors[rows] = self._compute([tokens[row] for row in rows])
        return vectors

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        prompt = self._manifest.prompt
        given = [prompt + text for text in texts] if prompt else list(texts)
        return [each.ids for each in self._tokenizer.encode_batch_fast(given)]

    def _compute(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Compute texts whose padded lengths are equal."""
        inputs = _model_inputs(self._manifest, tokens)
        vectors: NDArray[np.float32] = self._session.run(None, inputs)[0]
        return vectors


def _model_inputs(
    manifest: PreparedModel, tokens: Sequence[Sequence[int]]
) -> dict[str, NDArray[np.int64]]:
    """Return the inputs of the graph: int64, shape (len(tokens), padded length), by name."""
    import numpy as np

    width = max([1, *map(len, tokens)])
    ids = np.full((len(tokens), width), manifest.pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, each in enumerate(tokens):
        part = slice(width - len(each), width) if manifest.pads_left else slice(len(each))
        ids[row, part] = each
        mask[row, part] = 1
    every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: every[name] for name in manifest.inputs}


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Give the places of the texts that are computed together, by their numbers of tokens."""
    batch: list[int] = []
    wasted = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        padding = lengths[batch[0]] - lengths[place] if batch else 0
        full = batch and (
            len(batch) == _BATCH or (len(batch) + 1) * lengths[batch[0]] > _BATCH_TOKENS
        )
        if full or wasted + padding > _WASTE:
            yield batch
            batch, wasted, padding = [], 0, 0
        batch.append(place)
        wasted += padding
    if batch:
        yield batch


def _tokenizer(folder: Path) -> Tokenizer:
    # Its own threads would only contend with the model's, and it warns after a fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / TOKENIZER))


def _session(folder: Path, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # A given number also keeps it from pinning its threads to processors.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that wait for the next batch take no processor from the steps beside it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        str(folder / ONNX), options, providers=["CPUExecutionProvider"]
    )
