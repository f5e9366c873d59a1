"""Forty results of a search, each with its price, before they are scrolled into view.

The page starts a run at each key. All searches share the catalogue's vectors. When the query has
settled, a step requests the prices of the results, a few at a time; one that fails leaves the rest.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field, ValidationError

from headstart_service.sdk import Embedder, Pipeline, StepFailed, step

if TYPE_CHECKING:
    import httpx2
    import numpy as np
    from numpy.typing import NDArray

_EXACT: Final = 0.5
"""What a title that has all words of the query gets beside its similarity."""


class Item(BaseModel, extra="forbid"):
    """Something that can be found."""

    id: str = Field(pattern="^[A-Za-z0-9-]{1,50}$")
    title: str = Field(min_length=1, max_length=300)
    category: str = Field(default="", max_length=100)


class Inputs(BaseModel, extra="forbid"):
    """A search among these items."""

    query: str = Field(min_length=1, max_length=200)
    items: list[Item] = Field(min_length=1, max_length=2000)
    count: int = Field(default=40, ge=1, le=100)


class Hit(Item):
    """A result."""

    score: float


class _Answer(BaseModel):
    cents: int = Field(ge=0)


@step(required=True, timeout=60, max_attempts=2, memo=True)
async def item_vectors(items: list[Item], embedder: Embedder) -> NDArray[np.float32]:
    """The items' meanings. Memoised: all searches share the catalogue."""
    return await embedder.embed([item.title for item in items])


@step(required=True, timeout=10, max_attempts=2)
async def hits(
    query: str,
    items: list[Item],
    count: int,
    item_vectors: NDArray[np.float32],
    embedder: Embedder,
) -> list[Hit]:
    """The items that fit the query best."""
    scores = (item_vectors @ (await embedder.embed([query]))[0]).tolist()
    wanted = _words(query)
    found = [
        Hit(**item.model_dump(), score=round(score + _EXACT * (wanted <= _words(item.title)), 4))
        for item, score in zip(items, scores, strict=True)
    ]
    return sorted(found, key=lambda hit: -hit.score)[:count]


@step()
async def categories(hits: list[Hit]) -> dict[str, int]:
    """How many results each category has, the largest first."""
    return dict(Counter(hit.category for hit in hits if hit.category).most_common())


@step(each="hits", parallel=8, timeout=1, settle=0.3)
async def prices(hits: Hit, http: httpx2.AsyncClient) -> int:
    """The price of one result, in cents."""
    import httpx2

    # No input: callers must not choose where this worker sends requests.
    base = os.environ.get("PRICES_URL", "http://localhost:8080")
    try:
        response = await http.get(f"{base}/{hits.id}")
        response.raise_for_status()
        return _Answer.model_validate_json(response.content).cents
    except httpx2.HTTPStatusError as error:
        problem = f"answered {error.response.status_code}"
    except (httpx2.HTTPError, ValidationError):
        problem = "no answer"
    raise StepFailed(problem)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


PIPELINE = Pipeline(
    name="search",
    version="1",
    description="Results of a search with their prices, while the query is typed",
    inputs=Inputs,
    steps=(item_vectors, hits, categories, prices),
)
