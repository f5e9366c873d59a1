"""Embeds what is known without asking the model.

A word costs the model 5 ms when it is alone. Players choose common words, and the vocabulary holds
the vectors of the commonest. A vector that is looked up is within 1e-6 of what the model would give
(docs/decisions/0004).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from ..base.metric_labels import TextSource
from ..pipeline.identity import identity_of
from .provider_observer import EmbeddingObserver, Unwatched

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class _Embedder(Protocol):
    @property
    def model(self) -> str: ...

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


class _Vocabulary(Protocol):
    @property
    def matrix(self) -> NDArray[np.float32]: ...

    @property
    def index(self) -> Mapping[str, int]: ...


class CachedEmbedder:
    """An embedder that knows a vocabulary's words, and the texts that it embedded last."""

    def __init__(
        self,
        embedder: _Embedder,
        vocabulary: _Vocabulary | None,
        *,
        remembered: int,
        observer: EmbeddingObserver | None = None,
    ) -> None:
        """Keep the vectors of at most `remembered` texts.

        `ensure_vocabulary` guarantees a vocabulary of the same model with the same weights.
        """
        self._embedder = embedder
        self._vocabulary = vocabulary
        self._remembered = remembered
        self._observer = observer or Unwatched()
        self._recent: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    @property
    def model(self) -> str:
        """The model's name, which callers see beside the vectors."""
        return self._embedder.model

    @property
    def identity(self) -> str:
        """The embedder's: what is looked up is what it would give."""
        return identity_of(self._embedder)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed each text as a float32 row of unit length: shape (len(texts), dimension).

        Raises StepFailed when the model fails.
        """
        import numpy as np

        found = {text: self._known(text) for text in texts}
        unknown = [text for text, vector in found.items() if vector is None]
        if unknown:
            self._observer.embedded(TextSource.MODEL, len(unknown))
        if unknown or not texts:
            vectors = await self._embedder.embed(unknown)
            if not texts:
                return vectors
            for text, vector in zip(unknown, vectors, strict=True):
                found[text] = vector
                self._remember(text, vector)
        return np.stack([vector for text in texts if (vector := found[text]) is not None])

    def _known(self, text: str) -> NDArray[np.float32] | None:
        recent = self._recent.get(text)
        if recent is not None:
            self._recent.move_to_end(text)
            self._observer.embedded(TextSource.REMEMBERED, 1)
            return recent
        if self._vocabulary is not None and (row := self._vocabulary.index.get(text)) is not None:
            self._observer.embedded(TextSource.VOCABULARY, 1)
            known: NDArray[np.float32] = self._vocabulary.matrix[row]
            return known
        return None

    def _remember(self, text: str, vector: NDArray[np.float32]) -> None:
        if self._remembered:
            # A copy: a row of a batch would keep the whole batch in memory.
            self._recent[text] = vector.copy()
            if len(self._recent) > self._remembered:
                self._recent.popitem(last=False)
