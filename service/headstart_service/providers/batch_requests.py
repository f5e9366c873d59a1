"""Requests to an API about batches. Each ends in time, and says what it has shown of its batch."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from ..domain.errors import StepFailed
from ..pipeline.language_model import Answer
from .dialect import BatchDialect, Question
from .model_request import ModelRequest, SdkErrors, translated
from .provider_observer import TIMEOUT

log = logging.getLogger(__name__)

_GONE: Final = 404


@dataclass(frozen=True, slots=True)
class Poll:
    """What a request has shown of a batch."""

    answer: Answer | None = None
    ended: bool = False
    """Whether the batch costs nothing from now on."""
    lost: bool = False
    """Whether it gives no answer that can be read."""
    canceled: bool = False
    """Whether the API has agreed to cancel it."""
    retry_after: float = 0.0
    """Seconds that the API asks callers to wait for the next request."""


class BatchRequests:
    """Sends requests to one API."""

    def __init__(
        self,
        dialect: BatchDialect,
        errors: Callable[[], SdkErrors],
        *,
        title: str,
        timeout: float,
    ) -> None:
        """Speak `dialect`. Messages call the API `title`; an answer takes `timeout` s at most."""
        self._dialect = dialect
        self._errors = errors
        self._title = title
        self._timeout = timeout

    def parameters(self, question: Question) -> Mapping[str, Any]:
        """Return a question as the API's JSON."""
        return self._dialect.request(question)

    def new(self) -> ModelRequest:
        """Return a request that has not been sent."""
        return ModelRequest(self._title, time.perf_counter(), self._timeout)

    def hand_in(
        self, parameters: Mapping[str, Any], name: str, request: ModelRequest
    ) -> asyncio.Task[str]:
        """Hand one request of this name in. The task raises StepFailed if no batch is made."""

        async def handed_in() -> str:
            async with self._translated(request):
                return await self._dialect.hand_in(parameters, name)

        return asyncio.create_task(handed_in(), name=f"batch {name}")

    async def poll(self, batch: str, name: str, *, cancels: bool) -> Poll:
        """Look at a batch and its request of this name. With `cancels`, cancel it before its end.

        Raises nothing: what cannot be seen now is seen by a later poll.
        """
        request, ended, canceled = self.new(), False, False
        try:
            async with self._translated(request):
                ended = await self._dialect.has_ended(batch)
                if not ended and cancels:
                    ended = await self._dialect.cancel(batch)
                    canceled = True
                answer = await self._dialect.answer(batch, name) if ended else None
                return Poll(answer, ended=ended, canceled=canceled)
        except StepFailed as error:
            log.info("%s: batch %s: %s", self._title, batch, error)
            lost = not request.may_pass
            gone = request.fresh and request.status == _GONE
            return Poll(
                ended=gone or (ended and lost),
                lost=lost,
                canceled=canceled,
                retry_after=max(0.0, request.retry_after),
            )

    @asynccontextmanager
    async def _translated(self, request: ModelRequest) -> AsyncIterator[None]:
        """Raise StepFailed for what goes wrong, also if it takes too long."""
        try:
            async with asyncio.timeout(2 * self._timeout):
                with translated(request, self._timeout, self._errors()):
                    yield
        except TimeoutError as error:
            request.end = TIMEOUT
            raise StepFailed("it did not answer") from error
