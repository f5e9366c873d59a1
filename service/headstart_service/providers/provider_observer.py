"""What providers report to their observers: metrics. These change nothing and return at once."""

from __future__ import annotations

from typing import Final, Protocol

from ..base.metric_labels import BatchEnd, TextSource
from ..pipeline.language_model import Usage

ANSWERED: Final = "answered"
NO_KEY, DECLINED, CUT_OFF, MALFORMED = "no_key", "declined", "cut_off", "malformed"
TIMEOUT, UNREACHABLE, UNREADABLE = "timeout", "unreachable", "unreadable"
RATE_LIMITED, OVERLOADED, REFUSED, SERVER_ERROR = (
    *("rate_limited", "overloaded"),
    *("refused", "server_error"),
)
CANCELLED: Final = "cancelled"
"""The step was stopped, or failed for another reason, while the request was under way."""
OVER_BUDGET: Final = "over_budget"
"""The request was not sent: its namespace has used up its tokens of the day."""
ENDS: Final = (
    *(ANSWERED, NO_KEY, DECLINED, CUT_OFF, MALFORMED, TIMEOUT, UNREACHABLE, UNREADABLE),
    *(RATE_LIMITED, OVERLOADED, REFUSED, SERVER_ERROR, CANCELLED, OVER_BUDGET),
)
"""How a request to a language model ends."""

MEANINGS: Final = {
    TIMEOUT: "did not answer",
    UNREACHABLE: "could not be reached",
    RATE_LIMITED: "answered 429 (rate limited)",
    OVERLOADED: "is overloaded",
    SERVER_ERROR: "failed",
}
"""What a provider did, by how its last bad call ended."""


class ProviderObserver(Protocol):
    """Watches the calls of a governed provider. Durations in seconds."""

    def called(self, provider: str, end: str, seconds: float) -> None:
        """Note the end of a call, in one of `ENDS`."""
        ...

    def waiting(self, provider: str, callers: int) -> None:
        """Note how many calls wait for a permit now."""
        ...

    def waited(self, provider: str, seconds: float) -> None:
        """Note how long a call has waited for its permit, or until it gave up."""
        ...

    def paused(self, provider: str, seconds: float) -> None:
        """Note that a refusal makes all workers pause."""
        ...

    def state(self, provider: str, opened: int) -> None:
        """Note how often the breaker has opened in a row; 0 while it is closed."""
        ...

    def over_budget(self, provider: str) -> None:
        """Note that a call was not made because its namespace is over its budget."""
        ...


class LanguageModelObserver(Protocol):
    """Watches requests to a language model."""

    def requested(self, end: str, seconds: float, retries: int) -> None:
        """Note a request that ended in one of `ENDS`, after so many repetitions."""
        ...

    def batched(self, end: BatchEnd) -> None:
        """Note how a call ended that went into a batch."""
        ...

    def spent(self, usage: Usage) -> None:
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

    def batched(self, end: BatchEnd) -> None:
        """Nothing."""

    def spent(self, usage: Usage) -> None:
        """Nothing."""

    def called(self, provider: str, end: str, seconds: float) -> None:
        """Nothing."""

    def waiting(self, provider: str, callers: int) -> None:
        """Nothing."""

    def waited(self, provider: str, seconds: float) -> None:
        """Nothing."""

    def paused(self, provider: str, seconds: float) -> None:
        """Nothing."""

    def state(self, provider: str, opened: int) -> None:
        """Nothing."""

    def over_budget(self, provider: str) -> None:
        """Nothing."""

    def embedded(self, source: TextSource, texts: int) -> None:
        """Nothing."""

    def encoded(self, texts: int, seconds: float) -> None:
        """Nothing."""
