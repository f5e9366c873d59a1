"""Inputs as they are kept: a worker computes with what the caller has sent, or nobody does."""

from __future__ import annotations

import math

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, computed_field

from headstart_service.domain.errors import InvalidRequest
from headstart_service.pipeline.mistakes import DeclarationError
from headstart_service.pipeline.pipeline import Pipeline
from headstart_service.pipeline.step import step
from tests.support.ledger import pipeline_of


@step()
async def made() -> str:
    return ""


def of(inputs: type[BaseModel]) -> Pipeline:
    return pipeline_of(made, inputs=inputs)


class Camel(BaseModel):
    user_id: str = Field(alias="userId")


class Doubled(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = 1

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way
    @property
    def twice(self) -> int:
        return 2 * self.size


class Hidden(BaseModel):
    text: str = ""
    language: str = Field(default="en", exclude=True)


class Nested(BaseModel):
    hidden: Hidden = Hidden()


class Tagged(BaseModel):
    tags: frozenset[str] = frozenset()


class Deep(BaseModel):
    all_of: list[Tagged | None] = []


class Secret(BaseModel):
    token: SecretStr = SecretStr("")


class Weight(BaseModel):
    kilograms: float = 0.0


@pytest.mark.parametrize(
    ("model", "raw"), [(Camel, {"userId": "7"}), (Doubled, {"size": 2}), (Nested, {})]
)
def test_what_is_kept_is_read_as_it_was_sent(model: type[BaseModel], raw: dict[str, str]) -> None:
    kept = of(model).plan(raw, "inputs").inputs
    assert model.model_validate_json(kept) == model.model_validate(raw)


@pytest.mark.parametrize(
    ("model", "raw"),
    [(Nested, {"hidden": {"language": "fr"}}), (Weight, {"kilograms": math.inf})],
)
def test_inputs_that_a_worker_would_read_as_others_are_refused(
    model: type[BaseModel], raw: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequest, match="is not the same when kept as JSON"):
        of(model).plan(raw, "inputs")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Hidden, "input language is excluded"),
        (Tagged, "input tags is a set"),
        (Deep, "input tags is a set"),
        (Secret, "input token is a secret"),
    ],
)
def test_a_model_whose_fields_cannot_be_kept_is_a_mistake(
    model: type[BaseModel], told: str
) -> None:
    with pytest.raises(DeclarationError, match=told):
        of(model)


@pytest.mark.parametrize("name", ["my pipeline", "a=b", "a,b", "", "x" * 65, "naïve"])
def test_a_name_that_the_store_cannot_keep_is_a_mistake(name: str) -> None:
    with pytest.raises(DeclarationError, match="a name is 1 to 64 of letters"):
        pipeline_of(made, name=name)
