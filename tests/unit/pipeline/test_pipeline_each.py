"""Declarations of steps that run once for each item, and of needs that may fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import BaseModel

from headstart_service.pipeline.each import item_text
from headstart_service.pipeline.mistakes import DeclarationError
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.signatures import output_schema, output_type
from headstart_service.pipeline.step import Step, step
from headstart_service.sdk import Item

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Rate(BaseModel):
    price: float


class Inputs(BaseModel):
    names: list[str]
    pair: tuple[str, int] = ("", 0)
    some: Sequence[int] | None = None
    text: str = ""
    short: Annotated[bool, "odd"] = False


def pipeline(*steps: Step, **more: Any) -> Pipeline:
    return Pipeline("p", "1", "", Inputs, steps, **more)


def mistakes(*steps: Step, **more: Any) -> str:
    with pytest.raises(DeclarationError) as caught:
        pipeline(*steps, **more)
    return str(caught.value)


@step(each="names")
async def rated(names: str) -> Rate:
    return Rate(price=len(names))


def test_callers_and_other_steps_get_a_list_of_values_or_failures() -> None:
    @step()
    async def best(rated: list[Item[Rate]]) -> float:
        return 0

    @step(each="rated")
    async def again(rated: Item[Rate]) -> str:
        return ""

    made = pipeline(rated, best, again)
    assert output_type(made.codec, rated) == "list[Item[Rate]]"
    schema = output_schema(made.codec, rated)
    assert schema is not None
    completed, failed = schema["items"]["anyOf"]
    assert completed["properties"]["value"]["properties"] == {
        "price": {"title": "Price", "type": "number"}
    }
    assert failed == {"$ref": "#/$defs/ItemFailure"}
    assert schema["$defs"]["ItemFailure"]["required"] == ["error", "reason"]
    with pytest.raises(DeclarationError, match="parameter rated is Item"):

        @step(each="rated")
        async def wrong(rated: Item[str]) -> str:
            return ""

        pipeline(rated, wrong)


@pytest.mark.parametrize(
    ("each", "kind", "fits"),
    [
        ("names", "str", True),
        ("names", "int", False),
        ("pair", "str | int", True),
        ("some", "int", True),
        ("some", "str", False),
        ("text", "str", False),
        ("short", "bool", False),
    ],
)
def test_the_parameter_has_the_type_of_an_item(each: str, kind: str, *, fits: bool) -> None:
    names: dict[str, Callable[..., Any]] = {}
    exec(f"async def one({each}: {kind}) -> int: ...", names)  # the test's own text
    one = step(each=each)(names["one"])
    if fits:
        pipeline(one)
    else:
        assert f"step one: {'parameter' if each in ('names', 'some') else 'each is'}" in (
            mistakes(one)
        )


def test_mistakes_of_each_name_the_option_and_what_is_allowed() -> None:
    def one(names: str, text: str = "") -> str:
        return names + text

    decorate: list[tuple[dict[str, Any], str]] = [
        ({"each": "name"}, "each is 'name', which must be one of its parameters: names, text"),
        ({"each": "text"}, "parameter text is an item, so it must have no default"),
        ({"each": "names", "parallel": 0}, "parallel must be 1 to 100, is 0"),
        ({"each": "names", "max_items": 10_001}, "max_items must be 1 to 10,000, is 10001"),
        ({"parallel": 3}, "parallel and max_items are for a step with each"),
    ]
    for options, text in decorate:
        with pytest.raises((TypeError, ValueError)) as caught:
            step(runs_on="thread", **options)(one)
        assert text in str(caught.value)

    async def yielding(names: str) -> AsyncIterator[str]:
        yield names

    with pytest.raises(ValueError, match="step yielding: each gives one value for each item"):
        step(each="names")(yielding)

    @step(each="embedder")
    async def provided(embedder: str) -> str:
        return ""

    @step(each="names")
    async def raw(names: str) -> bytes:
        return b""

    assert "each is embedder, which must be an input or a step" in mistakes(provided)
    assert "bytes is not kept as JSON, which a step with each must return" in mistakes(raw)
    codec = type("Own", (), {"encode": None, "decode": None})()
    assert "each needs an ArtifactCodec" in mistakes(rated, codec=codec)


def test_needs_with_a_default_or_that_may_be_none_are_soft() -> None:
    @step()
    async def maybe() -> str | None: ...

    @step()
    async def vector() -> NDArray[np.float32]: ...

    @step(when=lambda inputs: bool(inputs.text))
    async def sometimes() -> str:
        return ""

    @step()
    async def taker(
        maybe: str | None,
        vector: NDArray[np.float32] | None,
        sometimes: str = "",
        rated: list[Item[Rate]] | None = None,
    ) -> str:
        return ""

    made = pipeline(maybe, vector, sometimes, rated, taker)
    assert made.soft_needs(taker) == {"vector", "sometimes", "rated"}
    assert made.hard_needs(taker) == ("maybe",)
    with_it = made.plan({"names": [], "text": "x"}, "inputs").steps
    without = made.plan({"names": []}, "inputs").steps
    assert set(with_it) - set(without) == {"sometimes"}
    assert with_it["taker"] != without["taker"], "made without a need is another value"
    assert with_it["rated"] == without["rated"]


def test_pipelines_without_such_steps_keep_their_definition() -> None:
    """Workers and APIs of the version before must still understand each other."""

    @step()
    async def one(text: str) -> str:
        return text

    @step()
    async def two(one: str) -> str:
        return one

    assert pipeline(one, two).definition == "y3oyUzZg"
    digests = pipeline(one, two).plan({"names": []}, "inputs").steps
    assert digests == {"one": "k7OMIEeDaL6LQAoAJlQZlQ", "two": "FkXwN0JvQdesB8vkpm5oew"}


def test_equal_items_have_equal_texts() -> None:
    assert item_text(Rate(price=1)) == item_text({"price": 1.0})
    assert item_text("1") != item_text(1)
    assert item_text([float("nan")]) == "[NaN]"
