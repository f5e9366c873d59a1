"""The real model and a real, small vocabulary, loaded once per test process."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from headstart_service.config.loading import load_settings
from headstart_service.domain.errors import StartupError
from headstart_service.providers.building import build
from headstart_service.providers.encoder import Encoder, load_encoder
from headstart_service.providers.model_files import DEFAULT_MODEL, ModelIdentity
from headstart_service.providers.prepared_model import prepared_identity
from headstart_service.providers.vocabulary import Vocabulary, VocabularyUnusable, open_vocabulary
from headstart_service.providers.words import default_words

WORDS = 3000


@functools.cache
def load_default() -> Encoder:
    """The default model, which `make test` has prepared."""
    return load_encoder(DEFAULT_MODEL, load_settings({}).prepared_models)


@functools.cache
def load_vocabulary() -> Vocabulary:
    """The 3,000 most frequent words. Mapped, so the files may go at once.

    Their rows are those of the whole vocabulary, which `make test` has built; else they are embedded.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        words, model = default_words(WORDS), default_identity()
        build(directory, words, _rows, model, "test")
        return open_vocabulary(directory, model, thorough=True)


def _rows(words: Sequence[str]) -> np.ndarray:
    """The embeddings of these words."""
    try:
        whole = _whole_vocabulary()
        return whole.matrix[[whole.index[word] for word in words]]
    except (StartupError, VocabularyUnusable, KeyError):
        return load_default().encode(list(words))


def default_identity() -> ModelIdentity:
    """Which weights the default model has."""
    return prepared_identity(load_settings({}).prepared_models, DEFAULT_MODEL)


@functools.cache
def _whole_vocabulary() -> Vocabulary:
    return open_vocabulary(load_settings({}).vocabulary, default_identity())


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return load_default()


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return load_vocabulary()
