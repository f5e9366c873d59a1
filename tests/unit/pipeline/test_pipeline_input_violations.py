"""The violation of a misspelt input suggests the right name, however deep it stands."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from headstart_service.domain.errors import InvalidRequest
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step

UNKNOWN = "Extra inputs are not permitted"
REQUIRED = "Field required"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Offer(Strict):
    price: float = 0.0
    seller_name: str = Field(default="", alias="sellerName")


class Inputs(Strict):
    text: str
    language: str = "en"
    offers: list[Offer] = []
    best: dict[str, Offer] | None = None


class Loose(BaseModel):
    text: str
    language: str = "en"


@step(required=True)
async def length(text: str) -> int:
    return len(text)


def told(inputs: Any, model: type[BaseModel] = Inputs) -> dict[str, str]:
    pipeline = Pipeline("test", "1", "", model, (length,))
    with pytest.raises(InvalidRequest) as caught:
        pipeline.plan(inputs, "custom.inputs")
    return {v.field.removeprefix("custom.inputs."): v.description for v in caught.value.violations}


def test_a_misspelt_input_is_reported_with_the_right_name() -> None:
    assert told({"txt": "a", "langauge": "de", "zzz": 1}) == {
        "text": REQUIRED,
        "txt": f"{UNKNOWN}; did you mean 'text'?",
        "langauge": f"{UNKNOWN}; did you mean 'language'?",
        "zzz": UNKNOWN,
    }


def test_inner_objects_have_names_of_their_own() -> None:
    inputs = {
        "text": "a",
        "offers": [{"price": 1}, {"prize": 2}, {"seller_nam": "x"}],
        "best": {"us": {"pric": 3, "text": "b"}},
    }
    assert told(inputs) == {
        "offers.1.prize": f"{UNKNOWN}; did you mean 'price'?",
        "offers.2.seller_nam": f"{UNKNOWN}; did you mean 'sellerName'?",
        "best.us.pric": f"{UNKNOWN}; did you mean 'price'?",
        "best.us.text": UNKNOWN,
    }


def test_where_unknown_names_are_allowed_the_missing_one_names_what_is_there_instead() -> None:
    assert told({"langauge": "de", "txt": "a"}, Loose) == {
        "text": f"{REQUIRED}; there is 'txt': did you mean 'text'?"
    }
    assert told({"zzz": 1}, Loose) == {"text": REQUIRED}
    assert told({}, Loose) == {"text": REQUIRED}


def test_a_thousand_unknown_names_get_no_thousand_suggestions() -> None:
    inputs = {"text": "a"} | {f"languag{n}": n for n in range(1000)}
    found = told(inputs)
    assert len(found) == 1000
    assert sum("did you mean" in rule for rule in found.values()) == 8
