"""What steps hand to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Endpoints:
    """The embedded ends of a game. Vectors are float32, of unit length, shape (d,).

    They become read-only: steps share them, without a copy for each.
    """

    anchor: NDArray[np.float32]
    target: NDArray[np.float32]
    model: str
    """The name of the model that made them."""

    def __post_init__(self) -> None:
        self.anchor.setflags(write=False)
        self.target.setflags(write=False)

    def __deepcopy__(self, memo: object) -> Self:
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Bridge:
    """Words between the ends, best first, with their embeddings: float32, shape (len(words), d)."""

    words: Sequence[str]
    embeddings: NDArray[np.float32]
