"""What a worker provides: a step has what it names as a parameter, and need not import it.

Providers satisfy these protocols without knowing them; so does what a test puts in their place.
`identity` is all that a provider's answers depend on beside the question, in printable ASCII
without spaces. It is the same on all machines and after every restart, and changes as soon as
answers change. An absent or empty one means: the same everywhere, as for `http`. See
`pipeline.identity`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROVIDERS: Final = frozenset({"embedder", "vocabulary", "scan", "language_model", "http"})
"""The names that a step's parameter may have, beside the pipeline's inputs and steps. The type of
`http` is httpx2.AsyncClient; the protocols below are those of the others."""


class Embedder(Protocol):
    """Turns texts into vectors: the parameter `embedder`."""

    @property
    def model(self) -> str:
        """The model's name, which callers see beside the vectors."""
        ...

    @property
    def identity(self) -> str:
        """The model's name and the digest of its files."""
        ...

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed each text as a row of unit length, in their order: shape (n, d).

        A row's last bits depend on the processor and on other texts of the batch, by at most 1e-6.
        """
        ...


class Vocabulary(Protocol):
    """The words that bridges are made of: the parameter `vocabulary`."""

    @property
    def words(self) -> Sequence[str]:
        """The n words, each once, in lower case."""
        ...

    @property
    def matrix(self) -> NDArray[np.float32]:
        """Their vectors of unit length, by the embedder's model: shape (n, d)."""
        ...

    @property
    def index(self) -> Mapping[str, int]:
        """Each word's place in `words`."""
        ...

    @property
    def identity(self) -> str:
        """The digests of the words and of the model's files."""
        ...


class Ratings(Protocol):
    """The relevance of each vocabulary word to one game, whatever other games are rated with it."""

    def __len__(self) -> int:
        """How many words are rated."""
        ...

    def of(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the relevances of the words at `places`, of the same shape: exact to 1e-6."""
        ...

    def descending(self, first: int) -> Iterator[int]:
        """Yield all places by exact relevance, the highest first; fastest for the `first` ones."""
        ...


class RelevanceScan(Protocol):
    """Rates the whole vocabulary for a game: the parameter `scan`."""

    @property
    def identity(self) -> str:
        """The vocabulary's."""
        ...

    async def rate(self, anchor: NDArray[np.float32], target: NDArray[np.float32]) -> Ratings:
        """Compute min(w·anchor, w·target), the relevance, for each vocabulary word w."""
        ...
