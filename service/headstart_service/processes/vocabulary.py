"""Builds the vocabulary: `headstart vocabulary build`. Brings numpy."""

from __future__ import annotations

import sys
from pathlib import Path

from ..config.settings import Settings
from ..providers.building import ensure_vocabulary
from ..providers.encoder import load_encoder
from ..providers.prepared_model import ModelNotPrepared, prepared_identity
from ..providers.progress import build_progress
from ..providers.vocabulary import is_current
from ..providers.words import Source


def build_vocabulary(settings: Settings, *, words: Path | None, force: bool) -> None:
    """Make sure that the vocabulary is there; with `force`, make it anew."""
    source = Source.file(words) if words else None
    if not force and _up_to_date(settings, source.name if source else None):
        print(f"vocabulary: {settings.vocabulary} is up to date")
        return
    if force:
        (settings.vocabulary / "manifest.json").unlink(missing_ok=True)
    print("vocabulary: embedding its words, once: half a minute", file=sys.stderr, flush=True)
    # Load the model before the comparison: only a loaded model has a certain identity.
    encoder = load_encoder(
        settings.model, settings.prepared_models, threads=settings.compute_threads
    )
    with build_progress() as progress:
        made = ensure_vocabulary(
            settings.vocabulary, encoder.model_identity, source, encoder.encode, progress
        )
    print(f"vocabulary: {len(made.words)} words in {settings.vocabulary}")


def _up_to_date(settings: Settings, source: str | None) -> bool:
    """Whether there is nothing to build, by the manifests; loads nothing."""
    try:
        model = prepared_identity(settings.prepared_models, settings.model)
    except ModelNotPrepared:  # loading it names what is wrong
        return False
    return is_current(settings.vocabulary, model, source)
