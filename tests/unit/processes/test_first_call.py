"""What a server suggests once it serves can be answered by that very server."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field, field_validator

from headstart_service.config.loading import load_settings
from headstart_service.pipelines.bridging import BRIDGING
from headstart_service.processes.first_call import example_inputs, first_call
from headstart_service.sdk import Pipeline, step


class Article(BaseModel):
    text: str = Field(min_length=1)
    kind: Literal["news", "essay"]
    tags: list[str]
    scores: dict[str, float]
    count: int = 3
    draft: bool
    share: float = Field(examples=[0.25])


class Picky(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def never(cls, text: str) -> str:
        raise RuntimeError(text)


@step()
async def words(text: str) -> list[str]:
    return text.split()


ARTICLE = Pipeline("article", "1", "", Article, (words,))
PICKY = Pipeline("picky", "1", "", Picky, (words,))


@pytest.fixture(autouse=True)
def empty_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


def command(*known: Pipeline, address: str = "127.0.0.1:50051", **settings: str) -> list[str]:
    return shlex.split(first_call(load_settings(settings), known, address))


def test_the_inputs_are_values_of_the_types_that_the_pipeline_accepts():
    assert example_inputs(ARTICLE) == {
        "text": "some text",
        "kind": "news",
        "tags": [],
        "scores": {},
        "draft": True,
        "share": 0.25,
    }


def test_the_first_pipeline_that_takes_simple_inputs_is_suggested():
    _, *rest = command(PICKY, ARTICLE)
    assert rest[:5] == ["start", "try-1", "--pipeline", "article", "--inputs"]
    assert command(BRIDGING, ARTICLE)[1:] == ["start", "game-1", "ocean", "forest"]
    assert command(PICKY)[1:] == command()[1:] == ["pipelines"]


def test_the_command_is_the_one_beside_this_python_unless_it_is_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    beside = tmp_path / ".venv" / "bin" / "headstart"
    beside.parent.mkdir(parents=True)
    beside.touch(mode=0o755)
    monkeypatch.setattr("sys.executable", str(beside.with_name("python")))
    assert command()[0] == str(beside)
    monkeypatch.chdir(tmp_path)
    assert command()[0] == ".venv/bin/headstart"
    deleted = tmp_path / "deleted"
    deleted.mkdir()
    monkeypatch.chdir(deleted)
    deleted.rmdir()
    assert command()[0] == str(beside)
    monkeypatch.setenv("PATH", str(beside.parent))
    assert command()[0] == "headstart"


def test_another_port_and_what_a_secured_server_asks_for_are_in_the_command():
    assert command(address="127.0.0.1:4001")[-2:] == ["--address", "127.0.0.1:4001"]
    assert "--address" not in command()
    secured = {"tls_cert": "a", "tls_key": "b", "tls_client_ca": "c", "tokens": "d"}
    assert command(**secured)[:4] == [
        "HEADSTART_CA=YOUR_CA.pem",
        "HEADSTART_CLIENT_CERT=YOURS.pem",
        "HEADSTART_CLIENT_KEY=YOURS.key",
        "HEADSTART_TOKEN=YOUR_TOKEN",
    ]
