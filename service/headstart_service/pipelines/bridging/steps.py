"""The five steps of a bridging run.

Numpy and the modules that use it are imported inside the steps. Importing this module must stay
cheap, because the API process declares the pipeline without ever running it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...sdk import Embedder, LanguageModel, RelevanceScan, Vocabulary, step
from .inputs import BridgingInputs
from .values import Bridge, Endpoints

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TIMEOUT = 60.0
"""Seconds. A batch takes 0.05: only a swamped worker gets near this."""
_HAIKU_TIMEOUT = 45.0
"""Seconds, for both requests with the SDK's retries: players think for 30 to 120. The provider ends
a request a second earlier, with its reason."""
_MANY_CLUES = 10
"""Selecting and stemming more words takes milliseconds, too long for the loop."""
_MANY_DRAWS = 10_000
"""Drawing this many words takes a millisecond, too long for the loop."""


def _against_haiku(inputs: BridgingInputs) -> bool:
    return inputs.recipient_type == "haiku"


@step(required=True, timeout=_TIMEOUT, max_attempts=2)
async def embed_endpoints(anchor: str, target: str, embedder: Embedder) -> Endpoints:
    """The embeddings of anchor and target."""
    anchor_vector, target_vector = await embedder.embed([anchor, target])
    return Endpoints(anchor_vector, target_vector, embedder.model)


@step(timeout=_TIMEOUT, max_attempts=2)
async def lexical_bridge(
    anchor: str,
    target: str,
    clue_count: int,
    embed_endpoints: Endpoints,
    vocabulary: Vocabulary,
    scan: RelevanceScan,
) -> Bridge:
    """The vocabulary's best bridge: see `neighbours`."""
    from .neighbours import neighbours

    game = (embed_endpoints.anchor, embed_endpoints.target)
    ratings = await scan.rate(*game)
    words = vocabulary.words
    arguments = (ratings, words, anchor, target, clue_count)
    if clue_count <= _MANY_CLUES:
        best = neighbours(*arguments)
    else:
        best = await asyncio.to_thread(neighbours, *arguments)
    return Bridge([words[index] for index in best], vocabulary.matrix[best])


@step(timeout=_TIMEOUT, max_attempts=2)
async def null_samples(
    anchor: str,
    target: str,
    clue_count: int,
    null_sample_count: int,
    embed_endpoints: Endpoints,
    vocabulary: Vocabulary,
    scan: RelevanceScan,
    step_digest: str,
) -> NDArray[np.float64]:
    """The relevances of random bridges, ascending: see `null.null_samples`."""
    from .null import null_samples as draw

    ratings = await scan.rate(embed_endpoints.anchor, embed_endpoints.target)
    index = vocabulary.index
    ends = [index[word] for word in (anchor, target) if word in index]
    seed = int.from_bytes(step_digest.encode())
    arguments = (ratings, ends, clue_count, null_sample_count, seed)
    if clue_count * null_sample_count < _MANY_DRAWS:
        return draw(*arguments)
    return await asyncio.to_thread(draw, *arguments)


@step(timeout=_HAIKU_TIMEOUT, when=_against_haiku)
async def haiku_bridge(
    anchor: str, target: str, clue_count: int, language_model: LanguageModel
) -> Sequence[str]:
    """Claude Haiku's bridge. One attempt: the SDK retries what is worth it."""
    from .clues import ask_for_clues

    return await ask_for_clues(language_model, anchor, target, clue_count)


@step(timeout=_TIMEOUT, max_attempts=2, when=_against_haiku)
async def haiku_embeddings(haiku_bridge: Sequence[str], embedder: Embedder) -> NDArray[np.float32]:
    """The embeddings of Haiku's clues, in their order: shape (clues, d)."""
    return await embedder.embed(haiku_bridge)
