"""A provider's settings come from variables and files, and no message quotes a secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import BaseModel, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from headstart_service.config.settings_model import read_settings
from headstart_service.domain.errors import StartupError

SECRET = "s3cret-s3cret"


class Shelf(BaseModel, extra="forbid"):
    place: str = "cellar"
    key: SecretStr
    size: int = Field(3, gt=0, le=9)
    tags: list[str] = []


class Prefixed(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="STOCK_")
    place: str


class Talkative(BaseModel):
    key: SecretStr

    @model_validator(mode="after")
    def refuse(self) -> Talkative:
        raise ValueError(f"cannot use {self.key.get_secret_value()}")


def read(model: type[BaseModel], **variables: str) -> BaseModel:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return read_settings(model, "P_", "provider p").values


def test_variables_come_before_files_and_files_before_defaults(tmp_path: Path):
    (tmp_path / "key").write_text(f"{SECRET}\n")
    found = read(
        Shelf, P_KEY_FILE=str(tmp_path / "key"), P_TAGS='["a"]', P_SIZE="5", P_OTHER="x", P_PLACE=""
    )
    assert found.model_dump() == {
        "place": "cellar",
        "key": SecretStr(SECRET),
        "size": 5,
        "tags": ["a"],
    }
    assert isinstance(found, Shelf)
    both = read(Shelf, P_KEY="own", P_KEY_FILE=str(tmp_path / "key"))
    assert both.model_dump()["key"].get_secret_value() == "own"


def test_a_pydantic_settings_model_keeps_its_own_prefix():
    assert read(Prefixed, STOCK_PLACE="attic", P_PLACE="cellar").model_dump() == {"place": "attic"}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "P_KEY is not set; it or P_KEY_FILE is needed"),
        ({"P_SIZE": "12"}, "P_SIZE = '12': must be a whole number, 9 or less, more than 0"),
        ({"P_SIZE": SECRET}, "P_SIZE = '…': must be a whole number"),
        ({"P_TAGS": SECRET}, "P_TAGS: must be JSON"),
        ({"P_TAGS": "[[]]"}, "P_TAGS, 0: must be a valid string"),
        ({"P_KEY": "", "P_KEY_FILE": "/nowhere"}, "P_KEY_FILE = '/nowhere': No such file"),
    ],
)
def test_a_wrong_variable_is_named_with_its_range(variables: dict[str, str], said: str):
    key = {"P_KEY": SECRET} if variables else {}
    with pytest.raises(StartupError, match="provider p: wrong settings: ") as caught:
        read(Shelf, **key | variables)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


def test_not_even_a_validator_of_the_authors_shows_a_secret():
    with pytest.raises(StartupError, match=r"P_\*: cannot use …"):
        read(Talkative, P_KEY=SECRET)


def test_misspelt_variables_are_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("P_KEY", SECRET)
    monkeypatch.setenv("P_PLCE", "attic")
    found = read_settings(Shelf, "P_", "provider p")
    assert list(found.unknown(os.environ)) == [("P_PLCE", "P_PLACE")]
    assert found.hidden(f"401 for {SECRET}") == "401 for …"
