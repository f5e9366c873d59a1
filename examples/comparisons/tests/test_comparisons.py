from __future__ import annotations

import pytest
from headstart_comparisons import PIPELINE, Comparison, Summary

from headstart import InvalidRequest
from headstart.testing import run_pipeline
from tests.support.bag_of_words import BagOfWords

OFFERS = [
    {"id": "a", "text": "a light laptop", "figures": {"price": 900, "weight": 1.1}},
    {"id": "b", "text": "a light tablet", "figures": {"price": 450, "weight": 1.1}},
    {"id": "c", "text": "gaming desktop", "figures": {"price": 1000}},
]


async def compared(*selected: str, **inputs):
    inputs = {"offers": OFFERS, "selected": list(selected), "lower_is_better": ["price"]} | inputs
    return await run_pipeline(PIPELINE, inputs, providers={"embedder": BagOfWords()})


async def test_each_pair_is_compared_in_the_order_of_the_selection():
    run = await compared("c", "a", "b")
    pairs = [Comparison.model_validate(each) for each in run.values["comparisons"]]
    assert [(pair.left, pair.right) for pair in pairs] == [("c", "a"), ("c", "b"), ("a", "b")]
    assert pairs[2].similarity == pytest.approx(2 / 3)
    assert pairs[0].similarity == 0


async def test_the_largest_difference_comes_first_and_what_one_lacks_not_at_all():
    run = await compared("a", "b", "c")
    (ab, ac, _) = [Comparison.model_validate(each) for each in run.values["comparisons"]]
    assert [(each.name, each.better) for each in ab.differences] == [
        ("price", "b"),
        ("weight", None),
    ]
    assert [each.name for each in ac.differences] == ["price"]


async def test_the_summary_counts_wins_and_finds_the_twins():
    run = await compared("a", "b", "c")
    summary = Summary.model_validate(run.values["summary"])
    assert summary.wins == {"a": 1, "b": 2, "c": 0}
    assert summary.most_alike == ("a", "b")


def test_a_changed_selection_leaves_the_vectors_as_they_are():
    one, other = (
        PIPELINE.plan({"offers": OFFERS, "selected": selected}, "inputs").steps
        for selected in (["a", "b"], ["a", "b", "c"])
    )
    assert one["vectors"] == other["vectors"]
    assert one["comparisons"] != other["comparisons"]


@pytest.mark.parametrize(
    ("selected", "message"),
    [
        (["a", "x"], "selected: not on offer: x"),
        (["a", "a"], "selected: each id may occur once"),
        (["a"], r"custom\.inputs\.selected: List should have at least 2 items"),
    ],
)
async def test_a_selection_that_cannot_be_compared_is_refused(selected: list[str], message: str):
    with pytest.raises(InvalidRequest, match=message):
        await compared(*selected)
