"""Recommendations while the user reads: what to offer at the end of an article.

The page starts a run when the article is opened; when its end is scrolled into view, the
recommendations are there. The catalogue comes with the start, as the shop knows it then.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from headstart_service.sdk import Embedder, Pipeline, step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Item(BaseModel):
    """Something that can be recommended."""

    id: str = Field(min_length=1, max_length=100)
    text: str = Field(min_length=1, max_length=2000)


class Inputs(BaseModel):
    """What is read, and what there is."""

    article: str = Field(min_length=1, max_length=20_000)
    catalogue: list[Item] = Field(min_length=1, max_length=1000)
    count: int = Field(default=5, ge=1, le=50)
    diversity: float = Field(default=0.3, ge=0, le=1)
    """0: the most similar items, however alike; 1: as different from each other as can be."""


@step(required=True, timeout=10, max_attempts=2, memo=True)
async def article_vector(article: str, embedder: Embedder) -> NDArray[np.float32]:
    """The article's meaning: the mean of its paragraphs', because models read some 200 words."""
    paragraphs = [text.strip() for text in article.split("\n\n") if text.strip()]
    mean = (await embedder.embed(paragraphs or [article])).mean(axis=0)
    unit: NDArray[np.float32] = mean / ((mean @ mean) ** 0.5 or 1)
    return unit


@step(required=True, timeout=30, max_attempts=2, memo=True)
async def catalogue_matrix(catalogue: list[Item], embedder: Embedder) -> NDArray[np.float32]:
    """The items' meanings. Memoised: all who read share the catalogue."""
    return await embedder.embed([item.text for item in catalogue])


@step(required=True)
async def scores(
    article_vector: NDArray[np.float32], catalogue_matrix: NDArray[np.float32]
) -> NDArray[np.float32]:
    """How similar each item is to the article: cosines, -1 to 1."""
    return catalogue_matrix @ article_vector


@step(required=True)
async def similar(catalogue: list[Item], scores: NDArray[np.float32], count: int) -> list[str]:
    """The ids of the most similar items, best first: what to show if the rest is late."""
    best = (-scores).argsort(kind="stable")[:count]
    return [catalogue[place].id for place in best]


@step(timeout=10)
async def diverse(
    catalogue: list[Item],
    catalogue_matrix: NDArray[np.float32],
    scores: NDArray[np.float32],
    count: int,
    diversity: float,
) -> list[str]:
    """The ids of items that are similar to the article and not to each other, best first."""
    # In a thread: with a large catalogue it takes longer than the event loop should stand still.
    places = await asyncio.to_thread(
        maximal_marginal_relevance, catalogue_matrix, scores, count, 1 - diversity
    )
    return [catalogue[place].id for place in places]


def maximal_marginal_relevance(
    vectors: NDArray[np.float32], scores: NDArray[np.float32], count: int, relevance: float
) -> list[int]:
    """Places of items in order: of those left, always argmax λ·score - (1 - λ)·max sim(chosen).

    λ is `relevance`. Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for
    Reordering Documents and Producing Summaries", SIGIR 1998, doi:10.1145/290941.291025.
    """
    import numpy as np

    left = list(range(len(scores)))
    nearest = np.zeros(len(scores), dtype=np.float32)  # how alike each is to those chosen
    chosen: list[int] = []
    while left and len(chosen) < count:
        marginal = relevance * scores[left] - (1 - relevance) * nearest[left]
        place = left.pop(int(np.argmax(marginal)))
        alike = vectors @ vectors[place]
        nearest = np.maximum(nearest, alike) if chosen else alike
        chosen.append(place)
    return chosen


PIPELINE = Pipeline(
    name="recommendations",
    version="1",
    description="What to recommend at the end of an article, while it is read",
    inputs=Inputs,
    steps=(article_vector, catalogue_matrix, scores, similar, diverse),
)
