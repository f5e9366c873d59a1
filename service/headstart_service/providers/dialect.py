"""What differs between the APIs of language models: how they are asked, and how they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pydantic import BaseModel

from ..pipeline.language_model import Answer, Prompt, Turn, Usage
from .model_request import SdkErrors

CONNECTIONS: Final[Any] = {
    "max_connections": 1000,
    "max_keepalive_connections": 100,
    "keepalive_expiry": 120.0,
}
"""Of one model in one worker: its permits are what bounds its calls. An idle connection stays open
for two minutes, as the SDKs' own five seconds would end a warm one."""
CHARACTERS_A_TOKEN: Final = 4
_ROLES: Final = ("user", "assistant")


@dataclass(frozen=True, slots=True)
class Question:
    """What a step asks."""

    system: str
    turns: Sequence[Turn]
    max_tokens: int
    cache: bool
    output: type[BaseModel] | None = None
    """The form of the answer; None for text."""

    @classmethod
    def of(
        cls,
        system: str,
        prompt: Prompt,
        max_tokens: int,
        *,
        cache: bool,
        output: type[BaseModel] | None = None,
    ) -> Question:
        """Return a question. Raises ValueError or TypeError for what no API would take."""
        if max_tokens < 1:
            raise ValueError(f"max_tokens = {max_tokens}: must be 1 or more")
        return cls(system, turns_of(prompt), max_tokens, cache, output)

    @property
    def estimate(self) -> int:
        """About how many tokens it has."""
        return estimated(self.system, *(turn["content"] for turn in self.turns))


def estimated(*texts: str) -> int:
    """Return about how many tokens some texts have."""
    return sum(map(len, texts)) // CHARACTERS_A_TOKEN


def turns_of(prompt: Prompt) -> Sequence[Turn]:
    """Return the turns of a prompt. Raises ValueError or TypeError that names the wrong one."""
    if isinstance(prompt, str):
        return (Turn(role="user", content=prompt),)
    for number, turn in enumerate(prompt):
        role = turn.get("role")
        if role not in _ROLES:
            raise ValueError(f"prompt[{number}]: role is {role!r}: must be user or assistant")
        if not isinstance(turn.get("content"), str):
            raise TypeError(f"prompt[{number}]: content must be a str")
    if not prompt or prompt[-1]["role"] != "user":
        raise ValueError("prompt: the last turn must be the user's")
    return tuple(prompt)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a streamed answer: some text, or what the API reports of it."""

    text: str = ""
    usage: Usage | None = None
    """All that is known of it by now."""
    stop_reason: str = ""


class Pieces(Protocol):
    """A streamed answer. Errors are the SDK's."""

    async def next(self) -> Piece | None:
        """Return the next piece; None after the last one."""
        ...

    async def close(self) -> None:
        """Stop the answer, and close its connection unless it was read to its end."""
        ...


class BatchDialect(Protocol):
    """Speaks with an API that answers later, for less. Its calls raise the SDK's errors."""

    def request(self, question: Question) -> Mapping[str, Any]:
        """Return a question as the API's JSON."""
        ...

    async def hand_in(self, request: Mapping[str, Any], name: str) -> str:
        """Return the id of a new batch, whose only request has this name."""
        ...

    async def has_ended(self, batch: str) -> bool:
        """Return whether the batch has its results."""
        ...

    async def cancel(self, batch: str) -> bool:
        """Cancel the batch; return whether it has its results."""
        ...

    async def answer(self, batch: str, name: str) -> Answer | None:
        """Return the answer of a batch that has ended; None without one."""
        ...


class Dialect(Protocol):
    """Speaks with one API, about one model. Its calls raise the SDK's errors."""

    @property
    def title(self) -> str:
        """How messages call the API."""
        ...

    @property
    def lacks(self) -> str:
        """What a call needs and is not configured, as a reason; empty if there is all."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        ...

    @property
    def errors(self) -> SdkErrors:
        """The SDK's errors, of an open one."""
        ...

    @property
    def batches(self) -> BatchDialect | None:
        """The same API for batches; None if it has none."""
        ...

    def open(self) -> None:
        """Import the SDK and make its client. Blocks for a second."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...

    async def ask(self, question: Question) -> Answer | None:
        """Return the whole answer; None for a body that is none."""
        ...

    async def begin(self, question: Question) -> Pieces:
        """Begin an answer that is streamed."""
        ...

    async def reach(self) -> None:
        """Make a call that costs nothing."""
        ...
