"""The result codec of pipelines that have no message of their own: artifacts in CustomResults."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from headstart.v1 import precompute_pb2 as pb

from .kinds import AnyKind, Kind

_NONE: Final[Mapping[str, Kind]] = MappingProxyType({})
_ANY: Final = AnyKind()


class ArtifactCodec:
    """Keeps what a step returns by its annotation: as an array, bytes, or JSON.

    What comes back has the type that was annotated. Where that is `Any`, JSON comes back in
    JSON's types, tuples as lists.
    """

    def __init__(self, kinds: Mapping[str, Kind] = _NONE) -> None:
        """Know the kinds of these steps' values; those of all others are `Any`.

        A pipeline gives its steps' kinds to a codec that knows none.
        """
        self.kinds = kinds

    def checked(self, step: str, value: Any) -> Any:
        """The value as the next step gets it, also after another worker has taken over.

        Raises StepFailed when it is of another type than the step's annotation.
        """
        return self._kind(step).checked(value)

    def encode(self, step: str, value: Any) -> bytes:
        """The fragment that holds `value`. Raises StepFailed as `checked`, or if it cannot be."""
        return self.written(step, self.checked(step, value))

    def written(self, step: str, value: Any) -> bytes:
        """As `encode`, of what `checked` gave."""
        response = pb.GetResultsResponse()
        self._kind(step).write(value, response.custom.artifacts[step])
        return response.SerializeToString()

    def decode(self, step: str, fragment: bytes) -> Any:
        """The value that `encode` was given."""
        results = pb.GetResultsResponse.FromString(fragment).custom
        return self._kind(step).read(results.artifacts[step])

    def misfit(self, step: str, artifact: pb.Artifact) -> str:
        """What the artifact must be to be this step's value; empty when it is."""
        return self._kind(step).misfit(artifact)

    def _kind(self, step: str) -> Kind:
        return self.kinds.get(step, _ANY)
