"""A language model as spans, for an SDK that makes none: how long each answer took."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

from opentelemetry.trace import SpanKind, Tracer

from ...pipeline.identity import identity_of
from ...pipeline.language_model import Answer, LanguageModel, M, Prompt, SpokenText
from .spans import working


class TracedModel:
    """A language model whose calls are spans. A span holds neither prompt nor answer."""

    def __init__(self, model: LanguageModel, name: str, tracer: Tracer) -> None:
        self._model = model
        self._name = name
        self._tracer = tracer

    @property
    def identity(self) -> str:
        """The model's."""
        return identity_of(self._model)

    async def text(
        self,
        *,
        prompt: Prompt,
        max_tokens: int,
        system: str = "",
        cache: bool = False,
        batch: bool = False,
    ) -> Answer:
        """As the model's."""
        with self._span():
            return await self._model.text(
                prompt=prompt, max_tokens=max_tokens, system=system, cache=cache, batch=batch
            )

    async def parse(
        self,
        *,
        system: str,
        prompt: Prompt,
        output: type[M],
        max_tokens: int,
        cache: bool = False,
        batch: bool = False,
    ) -> M:
        """As the model's."""
        with self._span():
            return await self._model.parse(
                system=system,
                prompt=prompt,
                output=output,
                max_tokens=max_tokens,
                cache=cache,
                batch=batch,
            )

    @asynccontextmanager
    async def stream(
        self, *, system: str, prompt: Prompt, max_tokens: int, cache: bool = False
    ) -> AsyncIterator[SpokenText]:
        """As the model's; the span ends with the context."""
        with self._span():
            async with self._model.stream(
                system=system, prompt=prompt, max_tokens=max_tokens, cache=cache
            ) as spoken:
                yield spoken

    async def warm(self, *, system: str = "") -> bool:
        """As the model's, without a span: no step waits for it."""
        return await self._model.warm(system=system)

    def _span(self) -> AbstractContextManager[Any]:
        attributes: dict[str, str | int] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": self._name,
        }
        return working(self._tracer, f"chat {self._name}", SpanKind.CLIENT, attributes)
