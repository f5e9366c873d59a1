"""Comparisons while the user selects: each pair of the items that are ticked, side by side.

Every tick starts the run anew with one more item. The items' own vectors depend on the offer, not
on the selection, so a changed selection computes no more than its pairs.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, model_validator

from headstart_service.sdk import Embedder, Pipeline, step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Offer(BaseModel):
    """Something to choose from, with figures that can be compared."""

    id: str = Field(min_length=1, max_length=100)
    text: str = Field(min_length=1, max_length=2000)
    figures: dict[str, float] = Field(default_factory=dict, max_length=50)
    """By name, such as price or weight; an item may lack some."""


class Inputs(BaseModel):
    """What is on offer, and what is ticked."""

    offers: list[Offer] = Field(min_length=2, max_length=200)
    selected: list[str] = Field(min_length=2, max_length=20)
    lower_is_better: list[str] = Field(default_factory=list, max_length=50)

    @model_validator(mode="after")
    def _selected_from_the_offer(self) -> Inputs:
        known = {offer.id for offer in self.offers}
        if len(known) < len(self.offers):
            raise ValueError("offers: each id may occur once")
        if unknown := sorted(set(self.selected) - known):
            raise ValueError(f"selected: not on offer: {', '.join(unknown)}")
        if len(set(self.selected)) < len(self.selected):
            raise ValueError("selected: each id may occur once")
        return self


class Difference(BaseModel):
    """How two items differ in one figure."""

    name: str
    left: float
    right: float
    better: str | None
    """The id of the item with the better value; none if they are equal."""


class Comparison(BaseModel):
    """Two selected items, side by side."""

    left: str
    right: str
    similarity: float
    """Of their descriptions: the cosine of both texts, -1 to 1."""
    differences: list[Difference]
    """In figures that both have, the largest relative difference first."""


class Summary(BaseModel):
    """What the comparisons come to."""

    wins: dict[str, int]
    """By item, how many figures of how many pairs it has the better value in."""
    most_alike: tuple[str, str]


@step(timeout=20, max_attempts=2, memo=True)
async def vectors(offers: list[Offer], embedder: Embedder) -> NDArray[np.float32]:
    """Each item's text, as a vector. Takes no selection: kept when that changes."""
    return await embedder.embed([offer.text for offer in offers])


@step(required=True)
async def differences(
    offers: list[Offer], selected: list[str], lower_is_better: list[str]
) -> list[list[Difference]]:
    """Of each pair in the order of the selection."""
    by_id = {offer.id: offer for offer in offers}
    return [
        _differences(by_id[left], by_id[right], lower_is_better)
        for left, right in combinations(selected, 2)
    ]


@step()
async def comparisons(
    offers: list[Offer],
    selected: list[str],
    differences: list[list[Difference]],
    vectors: NDArray[np.float32],
) -> list[Comparison]:
    """Each pair of the selection, with how alike both are."""
    place = {offer.id: number for number, offer in enumerate(offers)}
    return [
        Comparison(
            left=left,
            right=right,
            similarity=float(vectors[place[left]] @ vectors[place[right]]),
            differences=differing,
        )
        for (left, right), differing in zip(combinations(selected, 2), differences, strict=True)
    ]


@step()
async def summary(selected: list[str], comparisons: list[Comparison]) -> Summary:
    """Which item is better how often, and which two are hardest to tell apart."""
    wins = dict.fromkeys(selected, 0)
    for comparison in comparisons:
        for difference in comparison.differences:
            if difference.better is not None:
                wins[difference.better] += 1
    alike = max(comparisons, key=lambda comparison: comparison.similarity)
    return Summary(wins=wins, most_alike=(alike.left, alike.right))


def _differences(left: Offer, right: Offer, lower_is_better: list[str]) -> list[Difference]:
    found = []
    for name in left.figures.keys() & right.figures.keys():
        one, other = left.figures[name], right.figures[name]
        lower, higher = (left.id, right.id) if one < other else (right.id, left.id)
        better = None if one == other else lower if name in lower_is_better else higher
        found.append(Difference(name=name, left=one, right=other, better=better))

    def relative(each: Difference) -> tuple[float, str]:
        return -abs(each.left - each.right) / (max(abs(each.left), abs(each.right)) or 1), each.name

    return sorted(found, key=relative)


PIPELINE = Pipeline(
    name="comparisons",
    version="1",
    description="Each pair of the selected items side by side, while the user selects",
    inputs=Inputs,
    steps=(vectors, differences, comparisons, summary),
)
