"""The real model and a real, small vocabulary, loaded once per test process."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest

from headstart_service.providers.building import build
from headstart_service.providers.encoder import SentenceEncoder
from headstart_service.providers.vocabulary import Vocabulary, open_vocabulary
from headstart_service.providers.words import default_words

WORDS = 3000


@functools.cache
def load_encoder() -> SentenceEncoder:
    """The default model."""
    return SentenceEncoder.load()


@functools.cache
def load_vocabulary() -> Vocabulary:
    """The 3,000 most frequent words. Mapped, so the files may go at once."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        encoder = load_encoder()
        build(directory, default_words(WORDS), encoder.encode, encoder.model_identity, "test")
        return open_vocabulary(directory, encoder.model_identity, thorough=True)


@pytest.fixture(scope="session")
def encoder() -> SentenceEncoder:
    return load_encoder()


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return load_vocabulary()
