"""What the steps need of a worker. Providers satisfy these without knowing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from pydantic import BaseModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

M = TypeVar("M", bound=BaseModel)


class Embedder(Protocol):
    """Turns texts into vectors."""

    @property
    def model(self) -> str:
        """The model's name, which callers see beside the vectors."""
        ...

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row of unit length per text, in their order: shape (n, d)."""
        ...


class Vocabulary(Protocol):
    """The words that bridges are made of."""

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


class RelevanceScan(Protocol):
    """Rates the whole vocabulary for a game."""

    async def relevance(
        self, anchor: NDArray[np.float32], target: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The relevance of each vocabulary word, shape (n,), read-only. See `relevance.py`."""
        ...


class LanguageModel(Protocol):
    """Answers a prompt in a given form."""

    async def parse(self, *, system: str, prompt: str, output: type[M], max_tokens: int) -> M:
        """The model's answer as an `output`.

        Raises StepFailed, with a reason fit for callers, when there is none.
        """
        ...
