"""What is embedded again, and what is looked up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from headstart_service.domain.errors import StepFailed
from headstart_service.providers.embedding_cache import RememberingEmbedder


class Counting:
    """Embeds a text as its length; remembers what it was asked for."""

    model = "counting"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken = False

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        if self.broken:
            raise StepFailed("broken")
        self.asked += texts
        return np.array([[len(text), 0] for text in texts], np.float32).reshape(-1, 2)


class Vocabulary:
    def __init__(self) -> None:
        self.index = {"ocean": 0, "forest": 1}
        self.matrix = np.array([[7, 7], [8, 8]], np.float32)


async def test_what_is_known_is_not_embedded_again() -> None:
    counting = Counting()
    embedder = RememberingEmbedder(counting, Vocabulary(), remembered=10)
    vectors = await embedder.embed(["ocean", "sea", "forest", "lagoon", "sea"])
    assert vectors.tolist() == [[7, 7], [3, 0], [8, 8], [6, 0], [3, 0]]
    assert vectors.dtype == np.float32
    assert counting.asked == ["sea", "lagoon"]
    assert (await embedder.embed(["lagoon", "mist"])).tolist() == [[6, 0], [4, 0]]
    assert counting.asked == ["sea", "lagoon", "mist"]
    assert (await embedder.embed(["forest"])).tolist() == [[8, 8]]
    assert len(counting.asked) == 3
    assert embedder.model == "counting"


def test_its_identity_is_that_of_the_embedder() -> None:
    class Identified(Counting):
        identity = "counting@1"

    assert RememberingEmbedder(Identified(), Vocabulary(), remembered=1).identity == "counting@1"
    assert RememberingEmbedder(Counting(), Vocabulary(), remembered=1).identity == ""


async def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    counting = Counting()
    embedder = RememberingEmbedder(counting, None, remembered=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await embedder.embed([text])
    assert counting.asked == ["a", "b", "c", "b"]


async def test_nothing_is_remembered_when_there_is_no_room_for_it() -> None:
    counting = Counting()
    embedder = RememberingEmbedder(counting, None, remembered=0)
    for _ in range(2):
        assert (await embedder.embed(["a"])).shape == (1, 2)
    assert counting.asked == ["a", "a"]


async def test_no_texts_have_no_vectors() -> None:
    embedder = RememberingEmbedder(Counting(), Vocabulary(), remembered=2)
    assert (await embedder.embed([])).shape == (0, 2)


async def test_what_could_not_be_embedded_is_tried_again() -> None:
    counting = Counting()
    counting.broken = True
    embedder = RememberingEmbedder(counting, None, remembered=2)
    with pytest.raises(StepFailed):
        await embedder.embed(["a"])
    counting.broken = False
    assert (await embedder.embed(["a"])).tolist() == [[1, 0]]


async def test_no_caller_can_change_what_is_remembered() -> None:
    embedder = RememberingEmbedder(Counting(), Vocabulary(), remembered=2)
    for text in ("sea", "ocean"):
        first = await embedder.embed([text])
        before = first.copy()
        first[:] = 0
        assert (await embedder.embed([text])).tolist() == before.tolist()
