"""An answer while it is given."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ..pipeline.language_model import Usage
from .dialect import CHARACTERS_A_TOKEN, Pieces
from .model_request import ModelRequest, SdkErrors, require_whole, translated


class StreamedAnswer:
    """Satisfies `pipeline.language_model.SpokenText`: iterate over its text."""

    def __init__(
        self, timeout: float, request: ModelRequest, pieces: Pieces, errors: SdkErrors
    ) -> None:
        self.usage = Usage()
        self.stop_reason = ""
        self._characters = 0
        self._timeout = timeout
        self._request = request
        self._pieces = pieces
        self._errors = errors

    @property
    def input_tokens(self) -> int:
        """What the question cost, beside what the prompt cache held."""
        return self.usage.input_tokens

    @property
    def estimate(self) -> int:
        """About how many tokens were received, for an API that does not report them."""
        return self._characters // CHARACTERS_A_TOKEN

    @property
    def output_tokens(self) -> int:
        """What the answer has cost, as far as the API has said."""
        return self.usage.output_tokens

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the text in pieces. Raises StepFailed at the end of an answer that is not whole."""
        while True:
            # Around the SDK alone: an error that the step raises between two pieces stays as it is.
            with translated(self._request, self._timeout, self._errors):
                piece = await self._pieces.next()
            if piece is None:
                break
            self.usage = piece.usage or self.usage
            self.stop_reason = piece.stop_reason or self.stop_reason
            if piece.text:
                self._characters += len(piece.text)
                yield piece.text
        require_whole(self._request, self.stop_reason)
