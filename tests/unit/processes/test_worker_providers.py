"""What a worker gives to steps is of one model, with the weights that it has loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider

from headstart_service.config.limits_file import LimitsFile
from headstart_service.config.loading import load_settings
from headstart_service.config.settings import Settings
from headstart_service.pipeline.identity import identity_of
from headstart_service.pipeline.providers import BUILT_IN
from headstart_service.pipeline.registry import Registry
from headstart_service.processes.governors import Governors
from headstart_service.processes.monitoring import WorkerMonitoring
from headstart_service.processes.vocabulary import build_vocabulary
from headstart_service.processes.worker_providers import open_providers
from headstart_service.providers.encoder import load_encoder
from headstart_service.providers.local_permits import LocalPermits
from headstart_service.providers.model_files import identify
from headstart_service.providers.vocabulary import Manifest
from headstart_service.telemetry.tracing.tracing import Tracing
from tests.support.processes import clean_environment
from tests.support.tiny_model import prepare_model

WORDS = [
    *("ocean", "forest", "river", "stone", "winter"),
    *("music", "bread", "train", "king", "ice"),
]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "words").write_text("\n".join(WORDS))
    prepare_model(tmp_path / "model", tmp_path / "models", seed=1)
    return load_settings(
        {
            "model": str(tmp_path / "model"),
            "prepared_models": str(tmp_path / "models"),
            "vocabulary": str(tmp_path / "vocabulary"),
            "haiku_model": "claude-haiku-5-5",
            "storage": f"file://{tmp_path}/storage",
        }
    )


def providers(
    settings: Settings, *, traced: bool = False
) -> AbstractAsyncContextManager[Mapping[str, Any]]:
    figures = WorkerMonitoring(Registry([]))
    tracing = Tracing(TracerProvider()) if traced else None
    governors = Governors(LocalPermits(), LimitsFile(None), 1.0, figures.providers)
    return open_providers(settings, BUILT_IN, figures.models, tracing, governors)


@pytest.fixture(autouse=True)
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words that a vocabulary is built of when it has to be built anew."""
    monkeypatch.setattr("headstart_service.providers.words.default_words", lambda _: WORDS)


async def test_replaced_weights_are_never_mixed_with_vectors_of_those_before(
    settings: Settings,
) -> None:
    async with providers(settings) as before:
        first = await before["embedder"].embed(WORDS)
        identities = {name: identity_of(provider) for name, provider in before.items()}
    prepare_model(Path(settings.model), settings.prepared_models, seed=2)
    expected = load_encoder(settings.model, settings.prepared_models).encode(WORDS)
    async with providers(settings) as after:
        looked_up = await after["embedder"].embed(WORDS)
        assert np.allclose(looked_up, expected, atol=1e-6)
        assert np.allclose(after["vocabulary"].matrix, expected, atol=1e-6)
        assert not np.allclose(looked_up, first, atol=1e-2)
        others = {name: identity_of(provider) for name, provider in after.items()}
    changed = {name for name in BUILT_IN if identities[name] != others[name]}
    assert changed == {"embedder", "vocabulary", "scan"}


@pytest.mark.parametrize("traced", [False, True])
async def test_each_provider_has_the_identity_of_what_its_answers_depend_on(
    settings: Settings, *, traced: bool
) -> None:
    async with providers(settings, traced=traced) as given:
        identities = {name: identity_of(provider) for name, provider in given.items()}
        vocabulary = given["vocabulary"].identity
    model = identify(settings.model)
    words = Manifest.read(settings.vocabulary).words_sha256
    assert vocabulary == f"words-sha256:{words},model-sha256:{model.sha256}"
    assert identities == {
        "embedder": str(model),
        "vocabulary": vocabulary,
        "scan": vocabulary,
        "language_model": "claude-haiku-5-5",
        "http": "",
        "storage": "",
    }


PROVIDERS_WITHOUT = """
import asyncio, sys
from headstart_service.config.limits_file import LimitsFile
from headstart_service.processes.governors import Governors
from headstart_service.providers.local_permits import LocalPermits
from headstart_service.processes.monitoring import WorkerMonitoring
from headstart_service.pipeline.registry import Registry
from headstart_service.config.loading import load_settings
missing, *wanted = sys.argv[1:]
sys.modules |= dict.fromkeys(missing.split(","))
from headstart_service.processes.vocabulary import build_vocabulary
from headstart_service.processes.worker_providers import open_providers
async def main():
    settings = load_settings({"anthropic_api_key": "k"})
    figures = WorkerMonitoring(Registry([]))
    governors = Governors(LocalPermits(), LimitsFile(None), 1.0, figures.providers)
    async with open_providers(settings, set(wanted), figures.models, None, governors) as given:
        print(*sorted(given))
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("missing", "wanted", "said"),
    [
        (
            "numpy,onnxruntime,snowballstemmer,wordfreq,tqdm",
            "http language_model",
            "http language_model",
        ),
        (
            "httpx2",
            "http",
            (
                "PackageMissing: a step takes http, which needs httpx2, which is not installed: "
                "pip install '.[language-model]'"
            ),
        ),
        (
            "anthropic",
            "language_model",
            (
                "PackageMissing: a step takes language_model, which needs anthropic, which is not "
                "installed: pip install '.[language-model]'"
            ),
        ),
        (
            "openai",
            "language_model",
            (
                "PackageMissing: a step takes language_model, which needs openai, which is not "
                "installed: pip install '.[openai]'"
            ),
        ),
    ],
)
def test_a_provider_needs_its_own_extra_and_names_it(missing: str, wanted: str, said: str) -> None:
    command = [sys.executable, "-c", PROVIDERS_WITHOUT, missing, *wanted.split()]
    model = {"HEADSTART_LANGUAGE_MODEL": "openai:m"} if missing == "openai" else {}
    done = subprocess.run(
        command, env=clean_environment() | model, capture_output=True, text=True, check=False
    )
    assert said in done.stdout + done.stderr


def test_building_a_vocabulary_loads_a_model_only_for_another_one(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(*, force: bool = False) -> str:
        build_vocabulary(settings, words=tmp_path / "words", force=force)
        printed = capsys.readouterr()
        said = "vocabulary: embedding its words, once: half a minute\n"
        assert printed.err.startswith(said) is not printed.out.endswith(" is up to date\n")
        return printed.out.split(": ")[1]

    assert build().startswith("10 words in ")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headstart_service.processes.vocabulary.load_encoder", None)
        assert build().endswith(" is up to date\n")
    assert build(force=True).startswith("10 words in ")
    prepare_model(Path(settings.model), settings.prepared_models, seed=2)
    assert build().startswith("10 words in ")
    assert Manifest.read(settings.vocabulary).model_sha256 == identify(settings.model).sha256
