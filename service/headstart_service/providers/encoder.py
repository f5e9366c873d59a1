"""A sentence-transformers model on the CPU: loaded quietly, without a download by default."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Self

from ..base.extras import install
from ..domain.errors import PackageMissing, StartupError
from .model_files import DEFAULT_MODEL, ModelIdentity, identify, short, source_of, stamps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

_BATCH = 64
"""Texts per forward pass: the fastest of 32, 64, 128 and 256 for single words on 2 cores."""
_PAD_TO = 4
"""Texts are padded to a multiple of so many tokens, and computed with those of that length."""
_NOISY = ("sentence_transformers", "transformers", "huggingface_hub", "httpx", "httpx2")

_log = logging.getLogger(__name__)


class SentenceEncoder:
    """Turns texts into vectors of unit length. Blocks; not to be shared between threads."""

    def __init__(
        self, identity: ModelIdentity, dimension: int, transformer: SentenceTransformer
    ) -> None:
        """Wrap what `load` has loaded."""
        self.model = identity.name
        """The name that it was loaded by."""
        self.model_identity = identity
        """The same, with the digest of the files that were loaded."""
        self.dimension = dimension
        """The length of its vectors."""
        self._transformer = transformer

    @classmethod
    def load(cls, model: str = DEFAULT_MODEL, *, threads: int | None = None) -> Self:
        """Load `model` (a name or a path) for computing with `threads` threads (default: torch's).

        Blocks: the libraries take some 5 s to import, the model 0.5 s, its digest 0.1 s. The number
        of threads is torch's for the whole process. Raises StartupError when there is no such
        model, and when its files change meanwhile.
        """
        source = source_of(model)
        before = stamps(source)
        _silence()
        try:
            import torch
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise PackageMissing(
                f"embedding needs {error.name}, which is not installed: {install('worker')}"
            ) from error
        _silence_transformers()
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            transformer = SentenceTransformer(source, device="cpu")
            # Measured, not asked for: the method's name differs between releases. Also a warm-up.
            dimension = int(transformer.encode(["warm"], show_progress_bar=False).shape[1])
        # The libraries raise whatever they like: OSError, ValueError, KeyError, RuntimeError…
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise StartupError(
                f"HEADSTART_MODEL: cannot load the sentence-transformers model {model!r} "
                f"(a name on Hugging Face or a directory): {reason}"
            ) from error
        identity = identify(model)
        if before is not None and before != stamps(source):
            raise StartupError(
                f"HEADSTART_MODEL: the files of {model!r} changed while they were loaded: "
                "start again"
            )
        digest = short(identity.sha256)
        _log.info(
            "loaded %s, sha256 %s: %d dimensions, %d threads",
            model,
            digest,
            dimension,
            torch.get_num_threads(),
        )
        return cls(identity, dimension, transformer)

    @property
    def threads(self) -> int:
        """How many threads of torch's work on a batch, this one among them."""
        import torch

        return torch.get_num_threads()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed each text as a float32 row of unit length: shape (len(texts), dimension).

        A row is the same to 1e-6 whatever it is computed with, on any processor: see
        docs/decisions/0004-reproducible-embeddings.md.
        """
        import numpy as np

        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for places in self._by_length(texts):
            for start in range(0, len(places), _BATCH):
                chunk = places[start : start + _BATCH]
                vectors[chunk] = self._encode_padded([texts[place] for place in chunk])
        return vectors

    def _by_length(self, texts: Sequence[str]) -> Collection[list[int]]:
        """Group the places of the texts that are padded to the same number of tokens."""
        tokens: list[list[int]] = self._transformer.tokenizer(list(texts))["input_ids"]
        places: dict[int, list[int]] = {}
        for place, ids in enumerate(tokens):
            length = -(-len(ids) // _PAD_TO) * _PAD_TO
            places.setdefault(length, []).append(place)
        return places.values()

    def _encode_padded(self, texts: list[str]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = self._transformer.encode(
            texts,
            batch_size=len(texts),
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
            processing_kwargs={"text": {"pad_to_multiple_of": _PAD_TO}},
        )
        return vectors


def _silence() -> None:
    """Keep the libraries' progress bars and chatter out of the log. Before they are imported."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Its own threads would only contend with torch's, and it warns after a fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _silence_transformers() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # untyped there
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped there
