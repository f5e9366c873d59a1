"""Embeddings of an endpoint, against a real server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart_service.config.limits_file import LimitsFile
from headstart_service.config.loading import load_settings
from headstart_service.config.model_keys import embeddings_key, key_mistakes
from headstart_service.domain import ProviderNews, Rates, Settlement
from headstart_service.domain.errors import StartupError, StepFailed
from headstart_service.pipeline.identity import identity_of
from headstart_service.pipeline.registry import Registry
from headstart_service.processes.governors import Governors
from headstart_service.processes.lifecycle import served
from headstart_service.processes.monitoring import WorkerMonitoring
from headstart_service.processes.worker_providers import open_providers
from headstart_service.providers.endpoint_embedder import EndpointEmbedder
from headstart_service.providers.local_permits import LocalPermits
from headstart_service.providers.provider_observer import Unwatched
from headstart_service.worker.cost_meter import METER, CostMeter
from headstart_service.worker.step_deadline import end_in
from tests.support.embeddings_api import TOKENS, EmbeddingsApi

KEY = "sk-embeddings"


@pytest.fixture
def api() -> Iterator[EmbeddingsApi]:
    with EmbeddingsApi() as api:
        yield api


def embedder(api: EmbeddingsApi, **options: Any) -> EndpointEmbedder:
    permits = options.pop("permits", LocalPermits())
    governors = Governors(permits, LimitsFile(None), 1.0, Unwatched())
    given: dict[str, Any] = {"key": KEY, "dimensions": None, "batch": 2} | options
    governor = governors.of_model(["embedder"], "embeddings", "tiny", "the embeddings endpoint")
    return EndpointEmbedder(url=api.url + "/", model="tiny", governor=governor, **given)


def data(*rows: list[Any]) -> bytes:
    found = [{"index": at, "embedding": row} for at, row in enumerate(rows)]
    return json.dumps({"data": found}).encode()


async def test_texts_are_embedded_in_batches_in_their_order_with_unit_length(api: EmbeddingsApi):
    async with embedder(api) as it:
        rows = await it.embed(["aeiou", "bcdf", "ab"])
        assert (await it.embed([])).shape == (0, 2)
        assert it.identity == f"{api.url},tiny,2"
    expected = np.array([[5, 5], [4, 0], [2, 1]]) / [[50**0.5], [4], [5**0.5]]
    assert np.allclose(rows, expected, atol=1e-6)
    assert rows.dtype == np.float32
    asked = [request["input"] for request in api.requests]
    assert asked[0] == ["dimension"]
    assert sorted(asked[1:]) == [["ab"], ["aeiou", "bcdf"]]
    assert set(api.keys) == {f"Bearer {KEY}"}


async def test_with_dimensions_it_starts_without_asking(api: EmbeddingsApi):
    async with embedder(api, dimensions=3, key=None) as it:
        assert api.requests == []
        assert it.identity == f"{api.url},tiny,3"
        assert (await it.embed(["a"])).shape == (1, 3)
    assert api.requests[0]["dimensions"] == 3
    assert api.keys == [None]


async def test_a_refusal_that_may_pass_is_repeated(api: EmbeddingsApi):
    async with embedder(api, dimensions=2) as it:
        api.script(429, b"{}", retry_after="0.01")
        api.script(503, b"{}", retry_after="0.01")
        assert (await it.embed(["a"])).shape == (1, 2)
    assert len(api.requests) == 3


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [
        (401, b'{"error": "bad key sk-embeddings"}', "endpoint answered 401"),
        (200, b"<html>", "is no JSON"),
        (200, b"[]", "is no list of vectors"),
        (200, b'{"data": [{"index": 0, "embedding": "AAAA"}]}', "is no list of vectors"),
        (200, data([1, 0], [0, 1]), "has not one vector for each of 1 texts"),
        (200, data([1, 0, 0]), "has 3 numbers a text, not 2"),
        (200, data([0, 0]), "has a vector without a direction"),
    ],
)
async def test_an_answer_that_cannot_be_used_fails_the_step_with_its_reason(
    api: EmbeddingsApi, status: int, content: bytes, reason: str
):
    async with embedder(api, dimensions=2) as it:
        api.script(status, content)
        end_in(5.0)
        with pytest.raises(StepFailed, match=reason) as caught:
            await it.embed(["secret text"])
    assert not caught.value.retry
    assert "secret" not in str(caught.value)
    assert KEY not in str(caught.value)


async def test_its_tokens_count_for_the_step_and_the_budget(api: EmbeddingsApi):
    class Noting(LocalPermits):
        async def settle(self, provider: str, settled: Settlement, rates: Rates) -> ProviderNews:
            noted.append((settled.estimate, settled.tokens))
            return await super().settle(provider, settled, rates)

    noted: list[tuple[int, int]] = []
    METER.set(meter := CostMeter())
    async with embedder(api, permits=Noting(), dimensions=2) as it:
        await it.embed(["twelve chars", "a", "b"])
        assert sorted(noted) == [(0, TOKENS), (3, 2 * TOKENS)]
        assert meter.llm_tokens == 3 * TOKENS
        for usage in ({}, {"usage": None}, {"usage": {"prompt_tokens": "many"}}):
            api.script(200, json.dumps(json.loads(data([1, 0])) | usage).encode())
            await it.embed(["twelve chars"])
        assert noted[2:] == [(3, 3)] * 3
        assert meter.llm_tokens == 3 * TOKENS + 3 * 3


def test_its_key_may_come_from_a_file(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert embeddings_key(load_settings({"embeddings_key_file": str(file)})) == KEY
    assert embeddings_key(load_settings({"embeddings_key": KEY})) == KEY
    settings = load_settings({"embeddings_key_file": str(tmp_path)})
    [mistake] = key_mistakes(settings)
    assert mistake.startswith("HEADSTART_EMBEDDINGS_KEY_FILE: cannot read ")


async def test_a_worker_has_the_endpoint_as_its_embedder_or_does_not_start(api: EmbeddingsApi):
    settings = load_settings(
        {"embeddings_url": api.url, "embeddings_model": "tiny", "embeddings_key": KEY}
    )
    figures = WorkerMonitoring(Registry([]))
    governors = Governors(LocalPermits(), LimitsFile(None), 1.0, figures.providers)
    opening = open_providers(settings, {"embedder"}, figures.models, None, governors)
    async with opening as given:
        assert identity_of(given["embedder"]) == f"{api.url},tiny,2"
        assert given["embedder"].model == "tiny"
    api.script(401, b"{}")
    opening = open_providers(settings, {"embedder"}, figures.models, None, governors)
    with pytest.raises(StartupError, match=r"HEADSTART_EMBEDDINGS_URL: the .* answered 401; with"):
        async with opening:
            pass


def test_the_word_game_is_not_served_with_an_endpoint(api: EmbeddingsApi):
    with pytest.raises(StartupError, match="HEADSTART_EMBEDDINGS_URL: the word game needs"):
        served(load_settings({"embeddings_url": api.url}))
    assert list(served(load_settings({"embeddings_url": api.url, "bridging": "false"}))) == []
