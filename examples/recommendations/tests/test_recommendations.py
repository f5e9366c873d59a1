from __future__ import annotations

import numpy as np
import pytest
from headstart_recommendations import PIPELINE, maximal_marginal_relevance

from headstart import InvalidRequest
from headstart.testing import run_pipeline
from tests.support.bag_of_words import BagOfWords

ARTICLE = "Bread needs flour, water, salt and time.\n\nA sourdough starter is flour and water."
CATALOGUE = [
    {"id": "starter", "text": "Feeding a sourdough starter: flour and water"},
    {"id": "starter-again", "text": "Feeding a sourdough starter: flour and water and time"},
    {"id": "bicycle", "text": "How to mend a bicycle tyre"},
    {"id": "salt", "text": "Salt in bread"},
]


async def recommended(**inputs):
    inputs = {"article": ARTICLE, "catalogue": CATALOGUE, "count": 2} | inputs
    return await run_pipeline(PIPELINE, inputs, providers={"embedder": BagOfWords()})


async def test_what_is_most_like_the_article_comes_first():
    run = await recommended(count=4)
    assert run.status == "completed"
    assert set(run.values["similar"][:2]) == {"starter", "starter-again"}
    assert run.values["similar"][-1] == "bicycle"
    assert run.values["scores"].shape == (4,)


async def test_near_copies_make_room_for_something_else():
    run = await recommended(diversity=0.5)
    first, second = run.values["diverse"]
    assert first == run.values["similar"][0]
    assert second == "salt"


async def test_without_diversity_both_orders_are_the_same():
    run = await recommended(diversity=0, count=4)
    assert run.values["diverse"] == run.values["similar"]


def test_the_formula_is_the_papers():
    """Against the definition, computed the slow way."""
    random = np.random.default_rng(7)
    vectors = random.normal(size=(12, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = vectors @ vectors[0]
    chosen: list[int] = []
    while len(chosen) < 6:
        worth = {
            each: 0.7 * scores[each]
            - 0.3 * max((float(vectors[each] @ vectors[other]) for other in chosen), default=0.0)
            for each in range(12)
            if each not in chosen
        }
        chosen.append(max(worth, key=worth.__getitem__))
    assert maximal_marginal_relevance(vectors, scores, 6, 0.7) == chosen


async def test_an_empty_catalogue_is_refused():
    with pytest.raises(InvalidRequest, match=r"custom\.inputs\.catalogue: List should have at lea"):
        await recommended(catalogue=[])


async def test_the_list_does_not_wait_for_what_is_optional():
    assert PIPELINE.by_name["similar"].required
    assert not PIPELINE.by_name["diverse"].required
    assert "diverse" not in PIPELINE.needs(PIPELINE.by_name["similar"])
