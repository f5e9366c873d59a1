"""What steps may ask of a language model, whichever API serves it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict, TypeVar

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)

_CACHED_SHARE = 10
"""Tokens that were read from a prompt cache cost about a tenth of others."""


class Turn(TypedDict):
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    content: str


Prompt = str | Sequence[Turn]
"""A question, or a conversation whose last turn is the user's."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of one answer. Each counts once: `input_tokens` are those beside the cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    """Of the question, read from the API's prompt cache."""
    cache_write_tokens: int = 0
    """Of the question, written to the API's prompt cache."""

    @property
    def computed(self) -> int:
        """All tokens but those that were read from the cache."""
        return self.input_tokens + self.output_tokens + self.cache_write_tokens

    @property
    def charged(self) -> int:
        """What budgets and limits count: a token that was read from the cache is a tenth."""
        return self.computed + -(-self.cache_read_tokens // _CACHED_SHARE)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer as text."""

    text: str
    usage: Usage = Usage()
    stop_reason: str = "end_turn"
    """Why the model stopped: this, or "stop_sequence"."""


class SpokenText(Protocol):
    """An answer while it is given. What it knows grows as its text is iterated over."""

    @property
    def input_tokens(self) -> int:
        """What the question cost, beside what the prompt cache held."""
        ...

    @property
    def output_tokens(self) -> int:
        """What the answer has cost; of one left early, the cost reported until then."""
        ...

    @property
    def usage(self) -> Usage:
        """All tokens that are known by now; OpenAI's API reports them at the end."""
        ...

    @property
    def stop_reason(self) -> str:
        """Why the model stopped, such as "end_turn" or "max_tokens"; empty until it has."""
        ...

    def __aiter__(self) -> AsyncIterator[str]:
        """Yield the answer's text, piece by piece.

        Raises StepFailed, with a reason fit for callers, when it breaks off. So does an answer
        that ends with any `stop_reason` but "end_turn" and "stop_sequence", after its last piece.
        """
        ...


class LanguageModel(Protocol):
    """Answers a prompt as text, in a given form, or word by word.

    A `prompt` is a question, or the turns of a conversation. With `cache`, the API keeps `system`
    in its prompt cache, where callers must ask for that; others cache by themselves. With `batch`,
    a run that is needed much later may have its answer from a batch, for less. Each method
    raises StepFailed, with a reason fit for callers, when there is no whole answer.
    """

    @property
    def identity(self) -> str:
        """The language model's name."""
        ...

    async def text(
        self,
        *,
        prompt: Prompt,
        max_tokens: int,
        system: str = "",
        cache: bool = False,
        batch: bool = False,
    ) -> Answer:
        """Return the model's answer as text, with its usage."""
        ...

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
        """Return the model's answer as an `output`, validated."""
        ...

    def stream(
        self, *, system: str, prompt: Prompt, max_tokens: int, cache: bool = False
    ) -> AbstractAsyncContextManager[SpokenText]:
        """Stream the model's answer; leaving the context stops it.

        Entering raises StepFailed as `parse` does. To keep an answer that was cut off, catch the
        StepFailed of the iteration and read `stop_reason`.
        """
        ...

    async def warm(self, *, system: str = "") -> bool:
        """Open a connection, and with `system` fill the prompt cache. Returns whether it did.

        Fails no step: a model that is away is asked again by the first question.
        """
        ...
