"""How the steps' values become fragments of GetResultsResponse, and back.

Vectors are written as packed fields straight from the arrays' own bytes: see `wire_format`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from headstart.v1 import precompute_pb2 as pb

from ...sdk import wire_format

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_R = pb.BridgingResults


class BridgingCodec:
    """The `ResultCodec` of the bridging pipeline."""

    def encode(self, step: str, value: Any) -> bytes:
        """A serialized GetResultsResponse with just `step`'s fields of `bridging`.

        Raises KeyError for a step that the pipeline does not have.
        """
        return wire_format.field(
            pb.GetResultsResponse.BRIDGING_FIELD_NUMBER, _ENCODERS[step](value)
        )

    def decode(self, step: str, fragment: bytes) -> Any:
        """The value that `encode` was given; other fields of `fragment` are passed over.

        Raises KeyError for a step that the pipeline does not have.
        """
        return _DECODERS[step](pb.GetResultsResponse.FromString(fragment).bridging)


def _endpoints_bytes(value: Any) -> bytes:
    return b"".join(
        (
            wire_format.field(
                _R.ANCHOR_EMBEDDING_FIELD_NUMBER, wire_format.packed(value.anchor, "<f4")
            ),
            wire_format.field(
                _R.TARGET_EMBEDDING_FIELD_NUMBER, wire_format.packed(value.target, "<f4")
            ),
            wire_format.field(_R.EMBEDDING_MODEL_FIELD_NUMBER, value.model.encode()),
        )
    )


def _lexical_bytes(value: Any) -> bytes:
    words = wire_format.strings(_R.LEXICAL_BRIDGE_FIELD_NUMBER, value.words)
    return words + _embeddings(_R.LEXICAL_EMBEDDINGS_FIELD_NUMBER, value.embeddings)


def _null_bytes(value: Any) -> bytes:
    return wire_format.field(_R.NULL_SAMPLES_FIELD_NUMBER, wire_format.packed(value, "<f8"))


def _clues_bytes(value: Any) -> bytes:
    return wire_format.strings(_R.HAIKU_CLUES_FIELD_NUMBER, value)


def _clue_embeddings_bytes(value: Any) -> bytes:
    return _embeddings(_R.HAIKU_EMBEDDINGS_FIELD_NUMBER, value)


def _endpoints(results: pb.BridgingResults) -> Any:
    import numpy as np

    from .values import Endpoints

    return Endpoints(
        np.array(results.anchor_embedding, dtype=np.float32),
        np.array(results.target_embedding, dtype=np.float32),
        results.embedding_model,
    )


def _lexical(results: pb.BridgingResults) -> Any:
    from .values import Bridge

    return Bridge(list(results.lexical_bridge), _matrix(results.lexical_embeddings))


def _null(results: pb.BridgingResults) -> NDArray[np.float64]:
    import numpy as np

    return np.array(results.null_samples, dtype=np.float64)


def _clues(results: pb.BridgingResults) -> Sequence[str]:
    return list(results.haiku_clues)


def _clue_embeddings(results: pb.BridgingResults) -> NDArray[np.float32]:
    return _matrix(results.haiku_embeddings)


_ENCODERS = {
    "embed_endpoints": _endpoints_bytes,
    "lexical_bridge": _lexical_bytes,
    "null_samples": _null_bytes,
    "haiku_bridge": _clues_bytes,
    "haiku_embeddings": _clue_embeddings_bytes,
}
_DECODERS = {
    "embed_endpoints": _endpoints,
    "lexical_bridge": _lexical,
    "null_samples": _null,
    "haiku_bridge": _clues,
    "haiku_embeddings": _clue_embeddings,
}


def _matrix(embeddings: Iterable[pb.Embedding]) -> NDArray[np.float32]:
    import numpy as np

    return np.array([embedding.values for embedding in embeddings], dtype=np.float32)


def _embeddings(number: int, rows: NDArray[np.float32]) -> bytes:
    values = pb.Embedding.VALUES_FIELD_NUMBER
    return b"".join(
        wire_format.field(
            number, wire_format.field(values, wire_format.packed(row, "<f4")), always=True
        )
        for row in rows
    )
