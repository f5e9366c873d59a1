"""What providers report to their observers: metrics. These change nothing and return at once."""

from __future__ import annotations

from typing import Final, Protocol

from ..base.metric_labels import TextSource

ANSWERED: Final = "answered"
NO_KEY, DECLINED, CUT_OFF, MALFORMED = "no_key", "declined", "cut_off", "malformed"
TIMEOUT, UNREACHABLE, UNREADABLE = "timeout", "unreachable", "unreadable"
RATE_LIMITED, OVERLOADED, REFUSED, SERVER_ERROR = (
    *("rate_limited", "overloaded"),
    *("refused", "server_error"),
)
CANCELLED: Final = "cancelled"
"""The step was stopped, or failed for another reason, while the request was under way."""
ENDS: Final = (
    *(ANSWERED, NO_KEY, DECLINED, CUT_OFF, MALFORMED, TIMEOUT, UNREACHABLE, UNREADABLE),
    *(RATE_LIMITED, OVERLOADED, REFUSED, SERVER_ERROR, CANCELLED),
)
"""How a request to a language model ends."""


class LanguageModelObserver(Protocol):
    """Watches requests to a language model."""

    def requested(self, end: str, seconds: float, retries: int) -> None:
        """Note a request that ended in one of `ENDS`, after so many repetitions by the SDK."""
        ...

    def spent(self, input_tokens: int, output_tokens: int) -> None:
        """An answer cost so many tokens."""
        ...


class EmbeddingObserver(Protocol):
    """Watches embeddings."""

    def embedded(self, source: TextSource, texts: int) -> None:
        """So many texts got their embedding from this source."""
        ...

    def encoded(self, texts: int, seconds: float) -> None:
        """The model encoded a batch. Called on the model's own thread."""
        ...


class Unwatched:
    """Observes nothing."""

    def requested(self, end: str, seconds: float, retries: int) -> None:
        """Nothing."""

    def spent(self, input_tokens: int, output_tokens: int) -> None:
        """Nothing."""

    def embedded(self, source: TextSource, texts: int) -> None:
        """Nothing."""

    def encoded(self, texts: int, seconds: float) -> None:
        """Nothing."""
