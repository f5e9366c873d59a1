"""A pipeline that names its language model: its definition, its makers, and who gets which model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headstart.testing import run_pipeline
from headstart_service.commands.doctor.language_models import language_models
from headstart_service.config.limits_file import LimitsTable, ProviderLimits, uncalled_providers
from headstart_service.config.loading import load_settings
from headstart_service.config.model_keys import all_named, key_of
from headstart_service.config.model_names import ModelName
from headstart_service.domain.errors import StartupError
from headstart_service.pipeline.mistakes import DeclarationError
from headstart_service.pipeline.registry import Registry
from headstart_service.worker.offers import makers_of
from tests.support.provider_pipelines import PATIENT, SPEAKING

KEY = "language_model=openai:org/small"


class Fixed:
    """A language model of a test."""

    def __init__(self, identity: str) -> None:
        self.identity = identity

    async def parse(self, *, output: Any, **_: Any) -> Any:
        return output(clues=[self.identity])


@pytest.mark.parametrize(
    "name", ["gpt-5", "cohere:x", "openai:", "openai: ", "openai:a\n", "x" * 300]
)
def test_a_model_of_no_known_api_is_a_mistake_of_the_declaration(name: str) -> None:
    with pytest.raises(
        DeclarationError, match=r"language_model = .* must be anthropic:MODEL or op"
    ):
        replace(PATIENT, language_model=name)


def test_the_named_model_is_part_of_the_definition_and_none_changes_none() -> None:
    named, other = (replace(PATIENT, language_model=f"openai:{name}") for name in "ab")
    assert len({PATIENT.definition, named.definition, other.definition}) == 3
    assert replace(named, language_model="").definition == PATIENT.definition


def test_results_of_another_model_have_another_maker() -> None:
    usual, small = Fixed("claude"), Fixed("openai:org/small")
    providers = {"language_model": usual, KEY: small}
    assert makers_of(PATIENT, providers) == makers_of(PATIENT, {"language_model": usual})
    makers = makers_of(SPEAKING, providers)
    assert makers == makers_of(SPEAKING, {"language_model": small})
    assert makers != makers_of(SPEAKING, {"language_model": usual})


async def test_a_test_gives_the_named_model_by_the_parameters_name() -> None:
    pipeline = replace(PATIENT, language_model="openai:org/small")
    run = await run_pipeline(pipeline, {}, providers={"language_model": Fixed("mine")})
    assert run.values["patient"] == ["mine"]


def test_a_registry_names_the_models_that_steps_take() -> None:
    assert Registry([PATIENT, SPEAKING]).language_models == {"", "openai:org/small"}
    assert Registry([]).language_models == set()
    settings = load_settings({"language_model": "openai:big"})
    models = all_named(settings, ["", "openai:big", "openai:org/small"])
    assert list(map(str, models)) == ["openai:big", "openai:org/small"]


def test_limits_of_a_model_that_no_step_takes_are_named() -> None:
    names = ("openai", "openai/m", "openai/n", "anthropic")
    table = LimitsTable(providers=dict.fromkeys(names, ProviderLimits(concurrency=1)))
    found = list(uncalled_providers(table, [ModelName("openai", "m")]))
    there = "limits no calls; there are openai, openai/m"
    assert found == [f"HEADSTART_LIMITS: providers.{name} {there}" for name in names[2:]]


def test_a_key_comes_from_its_setting_or_alone_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    settings = load_settings({"openai_api_key_file": str(file)})
    file.write_text("a-key\n")
    assert (key_of(settings, "openai"), key_of(settings, "anthropic")) == ("a-key", None)
    for wrong in ("", "two keys", "a\nb", "caf\u00e9"):
        file.write_text(wrong)
        with pytest.raises(StartupError, match=r"OPENAI_API_KEY_FILE: .* must hold a key alone"):
            key_of(settings, "openai")
    file.write_bytes(b"\xff")
    with pytest.raises(StartupError, match=r"cannot read .*: it is not UTF-8"):
        key_of(settings, "openai")


@pytest.mark.parametrize(
    ("settings", "verdict", "found"),
    [
        ({}, "WARN", "no key: steps that take language_model fail: m"),
        ({"openai_api_key": "k"}, "OK", "a key is set; it was not tried, and is not shown: m"),
        (
            {"openai_base_url": "http://u:p@db/v1"},
            "OK",
            "no key for http://***@db/v1, which may need none; it was not tried: m",
        ),
        ({"openai_api_key_file": "/no/file"}, "FAIL", "OPENAI_API_KEY_FILE: cannot read /no/file"),
    ],
)
def test_the_doctor_knows_how_each_api_is_reached(
    settings: dict[str, str], verdict: str, found: str
) -> None:
    [check] = language_models(load_settings(settings), ["openai:m"])
    assert (check.name, check.verdict) == ("OpenAI", verdict)
    assert found in check.found
