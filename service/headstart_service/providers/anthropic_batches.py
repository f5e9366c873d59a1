"""Anthropic's Message Batches API: half the price, within 24 hours. One request a batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ..pipeline.language_model import Answer
from .anthropic_answers import answer_of
from .dialect import Question

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

_WORD: Final = re.compile(r"[\w.-]{1,200}")
_ENDED: Final = "ended"


class AnthropicBatches:
    """Satisfies `dialect.BatchDialect`."""

    def __init__(
        self,
        client: Callable[[], AsyncAnthropic],
        request: Callable[[Question], Mapping[str, Any]],
    ) -> None:
        """Speak by `client`; `request` translates a question as for a direct call."""
        self._client = client
        self.request = request

    async def hand_in(self, request: Mapping[str, Any], name: str) -> str:
        """Return the id of a new batch of one request."""
        requests: Any = [{"custom_id": name, "params": dict(request)}]
        batch = await self._client().messages.batches.create(requests=requests)
        return _readable(getattr(batch, "id", None))

    async def has_ended(self, batch: str) -> bool:
        """Return whether the batch has its results."""
        return _has_ended(await self._client().messages.batches.retrieve(batch))

    async def cancel(self, batch: str) -> bool:
        """Cancel the batch; return whether it has its results."""
        return _has_ended(await self._client().messages.batches.cancel(batch))

    async def answer(self, batch: str, name: str) -> Answer | None:
        """Return the answer to the request of this name; None if it errored, expired or so."""
        lines = await self._client().messages.batches.results(batch)
        try:
            async for line in lines:
                if getattr(line, "custom_id", None) == name:
                    result: Any = getattr(line, "result", None)
                    return answer_of(getattr(result, "message", None))
        finally:
            await lines.close()
        return None


def _has_ended(batch: object) -> bool:
    status = getattr(batch, "processing_status", None)
    return _readable(status) == _ENDED


def _readable(value: object) -> str:
    """Return a text of the API. Raises ValueError for what is none, which `translated` reads."""
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ValueError("no message batch")
    return value
