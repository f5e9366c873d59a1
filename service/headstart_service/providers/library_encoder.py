"""A model on sentence-transformers and torch: what exports are made from and compared with.

Workers load it only for a model that has no export.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..base.extras import install
from ..domain.errors import PackageMissing, StartupError
from .model_files import (
    ModelIdentity,
    digests_of,
    identity_by,
    refuse_foreign,
    stamps,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

_NOISY = ("sentence_transformers", "transformers", "huggingface_hub", "httpx", "httpx2")


class LibraryEncoder:
    """Turns texts into vectors of unit length. Blocks; not to be shared between threads."""

    def __init__(
        self,
        identity: ModelIdentity,
        digests: Mapping[str, str],
        dimension: int,
        transformer: SentenceTransformer,
    ) -> None:
        """Wrap what `load` has loaded."""
        self.model_identity = identity
        self.digests = digests
        self.dimension = dimension
        self.transformer = transformer

    @classmethod
    def load(cls, model: str, directory: Path, *, threads: int = 1) -> Self:
        """Load `model`, whose files are in `directory`, for computing with `threads` threads.

        Blocks: the libraries take some 5 s to import, the model 0.5 s, its digest 0.1 s. The number
        of threads is torch's for the whole process. Raises StartupError when there is no such
        model, its files are not upstream's, or they change meanwhile.
        """
        before = stamps(directory)
        _silence()
        try:
            import torch
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise PackageMissing(
                f"the model {model!r} needs {error.name}, which is not installed: "
                f"{install('model')}"
            ) from error
        _silence_transformers()
        torch.set_num_threads(threads)
        digests = digests_of(directory)
        refuse_foreign(model, digests)
        try:
            # Weights of 16 bits are computed in 32: vectors are float32, and of unit length.
            transformer = SentenceTransformer(str(directory), device="cpu").float()
            # Measured, not asked for: the method's name differs between releases. Also a warm-up.
            dimension = int(transformer.encode(["warm"], show_progress_bar=False).shape[1])
        # The libraries raise whatever they like: OSError, ValueError, KeyError, RuntimeError…
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise StartupError(
                f"HEADSTART_MODEL: cannot load the sentence-transformers model {model!r} "
                f"(a name on Hugging Face or a directory): {reason}"
            ) from error
        if before != stamps(directory):
            raise StartupError(
                f"HEADSTART_MODEL: the files of {model!r} changed while they were loaded: "
                "start again"
            )
        return cls(identity_by(model, digests), digests, dimension, transformer)

    @property
    def model(self) -> str:
        """The name that it was loaded by."""
        return self.model_identity.name

    @property
    def threads(self) -> int:
        """How many threads of torch's work on a batch, this one among them."""
        import torch

        return torch.get_num_threads()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed each text as a float32 row of unit length: shape (len(texts), dimension)."""
        import numpy as np

        if not texts:  # the library returns shape (0,)
            return np.empty((0, self.dimension), dtype=np.float32)
        vectors: NDArray[np.float32] = self.transformer.encode(
            list(texts),
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return vectors


def _silence() -> None:
    """Keep the libraries' progress bars and chatter out of the log. Before they are imported."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Every file is in the directory. Without this the libraries ask the hub for newer ones.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Its own threads would only contend with torch's, and it warns after a fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _silence_transformers() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # untyped there
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped there
