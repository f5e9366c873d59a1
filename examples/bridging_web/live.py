"""Computes a game's parts in this process: by the very functions that the service's worker runs.

What is here is what an application without Headstart would have: the model, the vocabulary with
its embeddings, and the language model. It remembers texts and shares scans as a worker does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from headstart_service.config.settings import Settings
from headstart_service.pipelines.bridging import BRIDGING, steps
from headstart_service.pipelines.bridging.inputs import BridgingInputs
from headstart_service.pipelines.bridging.values import Endpoints
from headstart_service.sdk import Embedder, LanguageModel, RelevanceScan, Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Fallbacks: TypeAlias = "Mapping[str, Callable[..., Awaitable[Any]]]"
Vector: TypeAlias = "tuple[float, ...]"


class Live:
    """What computes here and now. Open one with `open_live`."""

    def __init__(
        self,
        *,
        embedder: Embedder,
        vocabulary: Vocabulary,
        scan: RelevanceScan,
        language_model: LanguageModel,
    ) -> None:
        """Use these, as the pipeline's steps do."""
        self._embedder = embedder
        self._vocabulary = vocabulary
        self._scan = scan
        self._language_model = language_model

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One vector of unit length per text, in their order."""
        return _vectors(await self._embedder.embed(texts))

    def fallbacks(self, game: BridgingInputs) -> Fallbacks:
        """A function for each step that this game has; parameters name the steps it needs.

        Values are those that the client gives for a bridging step.
        """
        digests = BRIDGING.step_digests(game)
        anchor, target, count = game.anchor, game.target, game.clue_count

        async def embed_endpoints() -> dict[str, Any]:
            ends = await steps.embed_endpoints.function(anchor, target, self._embedder)
            return {
                "anchor_embedding": tuple(ends.anchor.tolist()),
                "target_embedding": tuple(ends.target.tolist()),
                "embedding_model": ends.model,
            }

        async def lexical_bridge(embed_endpoints: dict[str, Any]) -> dict[str, Any]:
            bridge = await steps.lexical_bridge.function(
                anchor, target, count, _ends(embed_endpoints), self._vocabulary, self._scan
            )
            return {
                "lexical_bridge": tuple(bridge.words),
                "lexical_embeddings": tuple(_vectors(bridge.embeddings)),
            }

        async def null_samples(embed_endpoints: dict[str, Any]) -> Vector:
            samples = await steps.null_samples.function(
                *(anchor, target, count, game.null_sample_count, _ends(embed_endpoints)),
                *(self._vocabulary, self._scan, digests["null_samples"]),
            )
            return tuple(samples.tolist())

        async def haiku_bridge() -> tuple[str, ...]:
            return tuple(
                await steps.haiku_bridge.function(anchor, target, count, self._language_model)
            )

        async def haiku_embeddings(haiku_bridge: Sequence[str]) -> tuple[Vector, ...]:
            return tuple(await self.embed(haiku_bridge))

        every = (embed_endpoints, lexical_bridge, null_samples, haiku_bridge, haiku_embeddings)
        return {each.__name__: each for each in every if each.__name__ in digests}


@asynccontextmanager
async def open_live(settings: Settings) -> AsyncIterator[Live]:
    """Load what a worker loads, with the same settings. Raises StartupError when it cannot."""
    # These imports take a second, and no other module of this package needs them.
    from headstart_service.config.model_keys import key_of
    from headstart_service.pipelines.bridging.scan import VocabularyScan
    from headstart_service.providers.anthropic import AnthropicModel
    from headstart_service.providers.embedding_cache import CachedEmbedder
    from headstart_service.providers.embeddings import SentenceEmbedder
    from headstart_service.providers.encoder import load_encoder
    from headstart_service.providers.vocabulary import open_vocabulary

    async with AsyncExitStack() as stack:
        load = partial(
            load_encoder,
            settings.model,
            settings.prepared_models,
            threads=settings.compute_threads,
        )
        embedder = await stack.enter_async_context(SentenceEmbedder(load))
        vocabulary = await asyncio.to_thread(
            open_vocabulary, settings.vocabulary, embedder.model_identity, thorough=True
        )
        scan = await stack.enter_async_context(
            VocabularyScan(vocabulary.matrix, identity=vocabulary.identity)
        )
        # The first product reads the whole matrix from disk: do that before a user waits.
        await scan.rate(*vocabulary.matrix[:2])
        haiku = await stack.enter_async_context(
            AnthropicModel(
                api_key=key_of(settings, "anthropic"),
                model=settings.haiku_model,
                base_url=settings.anthropic_base_url,
            )
        )
        remembering = CachedEmbedder(embedder, vocabulary, remembered=settings.word_cache)
        yield Live(embedder=remembering, vocabulary=vocabulary, scan=scan, language_model=haiku)


def _ends(value: dict[str, Any]) -> Endpoints:
    import numpy as np

    anchor, target = (
        np.array(value[f"{end}_embedding"], dtype=np.float32) for end in ("anchor", "target")
    )
    return Endpoints(anchor, target, value["embedding_model"])


def _vectors(rows: NDArray[np.float32]) -> list[Vector]:
    return [tuple(row) for row in rows.tolist()]
