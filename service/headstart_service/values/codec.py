"""What a pipeline needs to keep its steps' values: a codec."""

from __future__ import annotations

from typing import Any, Protocol


class ResultCodec(Protocol):
    """Converts a step's value into a serialized piece of GetResultsResponse, and back."""

    def encode(self, step: str, value: Any) -> bytes:
        """Return the fragment that holds `value` as the result of `step`."""
        ...

    def decode(self, step: str, fragment: bytes) -> Any:
        """Return the value that `encode` received for `step`."""
        ...
