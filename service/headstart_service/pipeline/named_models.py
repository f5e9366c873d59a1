"""The language model that a pipeline names, among the providers of a worker."""

from __future__ import annotations

from typing import Final

LANGUAGE_MODEL: Final = "language_model"
"""The parameter by which steps take a language model."""


def model_key(name: str) -> str:
    """Return under which name a worker has this model; without one, that of its settings."""
    return f"{LANGUAGE_MODEL}={name}" if name else LANGUAGE_MODEL
