import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from headstart_service.domain.errors import StepFailed
from headstart_service.pipeline.step import Step
from headstart_service.pipelines.bridging import BRIDGING
from headstart_service.pipelines.bridging.morphology import is_variant
from headstart_service.pipelines.bridging.neighbours import neighbours
from headstart_service.pipelines.bridging.ratings import Rater
from headstart_service.pipelines.bridging.scan import VocabularyScan
from headstart_service.providers.anthropic import AnthropicModel
from headstart_service.providers.embeddings import SentenceEmbedder
from headstart_service.providers.encoder import Encoder
from headstart_service.providers.vocabulary import Vocabulary
from tests.support.messages_api import MessagesApi, Reply

PAIRS = [
    "ocean/forest", "music/mathematics", "fire/ice", "doctor/teacher", "king/farmer", "love/war",
    "city/desert", "train/dream", "book/river", "money/happiness", "dog/computer", "sun/winter",
    "bread/stone", "law/art", "school/prison", "phone/letter", "blood/wine", "king/queen",
    "new york/deep sea", "xylophone/zeitgeist",
]  # fmt: skip


class Worker:
    """What a worker does, step by step: calls the step, encodes, decodes for those that need it."""

    def __init__(self, **providers: Any) -> None:
        self.providers = providers

    async def run(self, **game: Any) -> dict[str, Any]:
        plan = BRIDGING.plan({"recipient_type": "human"} | game, "")
        inputs = BRIDGING.inputs.model_validate_json(plan.inputs).model_dump()
        values: dict[str, Any] = {}
        for name, digest in plan.steps.items():
            step: Step = BRIDGING.by_name[name]
            known = inputs | values | self.providers | {"step_digest": digest}
            value = await step.function(**{p: known[p] for p in step.parameters})
            values[name] = BRIDGING.codec.decode(name, BRIDGING.codec.encode(name, value))
        return values


@pytest.fixture
async def worker(encoder: Encoder, vocabulary: Vocabulary) -> AsyncIterator[Worker]:
    async with (
        SentenceEmbedder(lambda: encoder) as embedder,
        VocabularyScan(vocabulary.matrix) as scan,
    ):
        yield Worker(embedder=embedder, vocabulary=vocabulary, scan=scan)


@pytest.mark.parametrize("pair", PAIRS)
async def test_the_lexical_bridge_is_what_brute_force_finds(
    pair: str, worker: Worker, vocabulary: Vocabulary
) -> None:
    anchor, target = pair.split("/")
    values = await worker.run(anchor=anchor, target=target, clue_count=7)
    ends = values["embed_endpoints"]
    vectors = np.array([ends.anchor, ends.target], dtype=np.float64)
    scores = (vocabulary.matrix.astype(np.float64) @ vectors.T).min(axis=1)
    taken: list[str] = []
    forbidden = [*anchor.split(), *target.split()]
    for place in sorted(range(len(scores)), key=lambda at: (-scores[at], at)):
        word = vocabulary.words[place]
        if len(taken) < 7 and not any(is_variant(word, other) for other in forbidden + taken):
            taken.append(word)
    bridge = values["lexical_bridge"]
    assert bridge.words == taken
    rows = [vocabulary.matrix[vocabulary.index[word]] for word in taken]
    assert np.array_equal(bridge.embeddings, rows)


async def test_null_samples_leave_anchor_and_target_out(
    worker: Worker, vocabulary: Vocabulary
) -> None:
    words = {"anchor": "ocean", "target": "forest"}
    values = await worker.run(**words, clue_count=1, null_sample_count=10_000)
    ends = values["embed_endpoints"]
    index = vocabulary.index["forest"]
    own = min(vocabulary.matrix[index] @ ends.anchor, vocabulary.matrix[index] @ ends.target)
    samples = values["null_samples"]
    assert len(samples) == 10_000
    assert (np.diff(samples) >= 0).all()
    assert not np.isclose(samples, own, atol=1e-7).any()


async def test_a_run_is_the_same_each_time(worker: Worker) -> None:
    first = await worker.run(anchor="ocean", target="forest")
    second = await worker.run(anchor=" Ocean", target="FOREST")
    assert np.allclose(first["null_samples"], second["null_samples"], rtol=0, atol=1e-6)
    assert first["lexical_bridge"].words == second["lexical_bridge"].words
    assert len(first["null_samples"]) == 100
    assert len(first["lexical_bridge"].words) == 5


async def test_the_best_bridge_beats_random_ones(worker: Worker) -> None:
    values = await worker.run(anchor="ocean", target="forest")
    ends, bridge = values["embed_endpoints"], values["lexical_bridge"]
    scores = np.minimum(bridge.embeddings @ ends.anchor, bridge.embeddings @ ends.target)
    assert (np.diff(scores) <= 1e-6).all()
    assert scores.mean() > values["null_samples"][-1]


async def test_haiku_builds_its_bridge_through_the_real_sdk(
    worker: Worker, encoder: Encoder
) -> None:
    with MessagesApi() as api:
        model = AnthropicModel(api_key="key", model="claude-haiku-5-5", base_url=api.url)
        async with model as worker.providers["language_model"]:
            api.script(Reply.clues(["oceanic", "coast", "coasts"]))
            values = await worker.run(
                anchor="ocean", target="forest", recipient_type="haiku", clue_count=3
            )
    clues = values["haiku_bridge"]
    assert clues[0] == "coast"
    assert len(set(clues)) == 3
    assert np.allclose(values["haiku_embeddings"], encoder.encode(clues), atol=1e-5)
    refused = json.loads(api.requests[1].prompt)["refused_clues_that_broke_a_rule"]
    assert refused == ["oceanic", "coasts"]


def best(scores: Any, words: list[str], count: int) -> list[int]:
    """`neighbours` of words with these relevances to ocean and forest, by vectors of one number."""
    one = np.ones(1, dtype=np.float32)
    [ratings] = Rater(scores[:, None]).rate([(one, one)])
    return neighbours(ratings, words, "ocean", "forest", count)


def test_a_vocabulary_with_too_few_words_fails_with_the_reason() -> None:
    words = ["ocean", "oceans", "forest", "rain", "rainy", "mist"]
    scores = np.arange(6, dtype=np.float32)
    with pytest.raises(StepFailed, match="of 6 words has only 2 that can bridge") as caught:
        best(scores, words, 3)
    assert not caught.value.retry
    assert best(scores, words, 2) == [5, 4]


def test_of_equally_relevant_words_the_first_come_first() -> None:
    words = [f"{chr(97 + at // 26)}q{chr(97 + at % 26)}x" for at in range(600)]
    scores = np.zeros(600, dtype=np.float32)
    scores[300:] = 1.0
    assert best(scores, words, 50) == list(range(300, 350))


def test_many_excluded_words_at_the_top_only_widen_the_search() -> None:
    words = [f"ocean-{at}" for at in range(5000)] + ["mist", "rain"]
    scores = np.linspace(1, 0, len(words), dtype=np.float32)
    assert best(scores, words, 2) == [5000, 5001]
