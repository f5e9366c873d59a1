"""The built-in providers: a step has what it names as a parameter, and need not import it.

Providers satisfy these protocols without knowing them; so does what a test puts in their place.
`identity` is all that a provider's answers depend on beside the question, in printable ASCII
without spaces. It is the same on all machines and after every restart, and changes as soon as
answers change. An absent or empty one means: the same everywhere, as for `http`. See
`pipeline.identity`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from ..values.references import Reference

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

BUILT_IN: Final = frozenset({"embedder", "vocabulary", "scan", "language_model", "http", "storage"})
"""The names that a step's parameter may have, beside the pipeline's inputs and steps. The type of
`http` is httpx2.AsyncClient; the protocols below are those of the others. Authors register more:
see `declared_providers`."""


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


class Storage(Protocol):
    """Keeps data outside Redis: the parameter `storage`."""

    async def put(self, data: bytes | Path) -> Reference:
        """Keep these bytes, or those of a local file, and return their reference."""
        ...

    async def get(self, reference: Reference) -> bytes:
        """Return the data. Raises StepFailed when they are gone, or are not those of before."""
        ...

    def open(self, reference: Reference) -> AbstractContextManager[BinaryIO]:
        """Open the data for reading, in a step that `runs_on="thread"`: this blocks."""
        ...
