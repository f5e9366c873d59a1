"""The embedding model as spans: how long texts waited for their batch and were computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from opentelemetry.trace import SpanKind, Tracer

from ...pipeline.identity import identity_of
from .spans import working


class Embedder(Protocol):
    """A model that turns texts into vectors."""

    @property
    def model(self) -> str:
        """Its name."""
        ...

    async def embed(self, texts: Sequence[str]) -> Any:
        """One row a text."""
        ...


class TracedEmbedder:
    """An embedder whose calls are spans. A span holds the number of texts, not the texts."""

    def __init__(self, embedder: Embedder, tracer: Tracer) -> None:
        self._embedder = embedder
        self._tracer = tracer

    @property
    def model(self) -> str:
        """The model's name."""
        return self._embedder.model

    @property
    def identity(self) -> str:
        """The embedder's."""
        return identity_of(self._embedder)

    async def embed(self, texts: Sequence[str]) -> Any:
        """As the embedder's."""
        if not texts:
            return await self._embedder.embed(texts)
        attributes: dict[str, str | int] = {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.request.model": self.model,
            "headstart.texts": len(texts),
        }
        with working(self._tracer, f"embeddings {self.model}", SpanKind.INTERNAL, attributes):
            return await self._embedder.embed(texts)
