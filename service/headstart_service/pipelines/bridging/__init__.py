"""The word-bridging game: what a game needs at submit, computed while its player still types.

Importing this package imports neither numpy nor torch nor any SDK: the API process declares and
plans the pipeline without them. Steps import their mathematics when they run, in a worker.
"""

from __future__ import annotations

from ...sdk import Pipeline
from .inputs import BridgingInputs
from .steps import embed_endpoints, haiku_bridge, haiku_embeddings, lexical_bridge, null_samples
from .wire import BridgingCodec

__all__ = ["BRIDGING"]

BRIDGING = Pipeline(
    name="bridging",
    version="1",
    description=(
        "Embeddings of two words, the vocabulary's best bridge between them, the relevances of "
        "random bridges and, against Claude Haiku, its bridge."
    ),
    inputs=BridgingInputs,
    steps=(embed_endpoints, lexical_bridge, null_samples, haiku_bridge, haiku_embeddings),
    codec=BridgingCodec(),
)
