"""A language model behind any API: permits, tries, usage and failures are the same for all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from types import TracebackType
from typing import Final, Self, TypeVar

from pydantic import BaseModel, ValidationError

from ..domain import CallOutcome, MessageBatches
from ..domain.errors import ExecutorUnavailable, StepFailed
from ..pipeline.language_model import Answer, Prompt, Usage
from ..worker.cost_meter import spend
from .batch_requests import BatchRequests
from .batch_rules import BatchRules
from .batched_calls import BatchedCalls
from .dialect import Dialect, Pieces, Question, estimated
from .governor import Governor, GovernorRules
from .local_permits import LocalPermits
from .model_request import (
    ModelRequest,
    limited,
    observed,
    require_whole,
    status_failure,
    translated,
    unreadable,
)
from .permit import Permit
from .provider_observer import (
    ANSWERED,
    CANCELLED,
    MALFORMED,
    NO_KEY,
    LanguageModelObserver,
    Unwatched,
)
from .retries import with_retries
from .streamed_answer import StreamedAnswer

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

TRY_TIMEOUT: Final = 20.0
PATIENCE: Final = 45.0
_LEASE: Final = 60.0
"""Seconds until the permit of a call is free whose worker was killed: a call takes less."""
_WARMING: Final = 10.0
"""Seconds that warming may take."""
_KEY_REFUSED: Final = (401, 403)

_log = logging.getLogger(__name__)


class GovernedModel:
    """A language model that one dialect reaches. Use it as an async context manager.

    Satisfies `pipeline.language_model.LanguageModel`.
    """

    def __init__(
        self,
        dialect: Dialect,
        *,
        identity: str,
        timeout: float = TRY_TIMEOUT,
        patience: float = PATIENCE,
        observer: LanguageModelObserver | None = None,
        governor: Governor | None = None,
        batches: MessageBatches | None = None,
        batch_rules: BatchRules | None = None,
    ) -> None:
        """Ask by `dialect`; where that lacks something, every request fails and none is sent.

        `timeout` is for each try, in seconds. Timeouts, lost connections, 408, 409, 429 and 5xx
        lead to other tries until the step's time ends. Outside of a step they begin within
        `patience` seconds. A pause that is longer than that is not begun. Each try needs a permit
        of the `governor`, by default one of its own. Without `batches`, which keep what was handed
        in, all calls are direct.
        """
        self._dialect = dialect
        self._identity = identity
        self._timeout = timeout
        self._patience = patience
        self._observer = observer or Unwatched()
        self._governor = governor or Governor(
            identity, dialect.title, LocalPermits(), GovernorRules(lease=_LEASE)
        )
        self._batched: BatchedCalls | None = None
        if batches is not None and dialect.batches is not None:
            title = dialect.title
            self._batched = BatchedCalls(
                BatchRequests(
                    dialect.batches, lambda: dialect.errors, title=title, timeout=timeout
                ),
                *(batches, self._governor, self._observer, batch_rules or BatchRules()),
                identity=identity,
                title=title,
            )

    @property
    def identity(self) -> str:
        """The language model's name: a gateway at another address gives the same model."""
        return self._identity

    async def __aenter__(self) -> Self:
        if not self._dialect.lacks:
            # Import the SDK here: it takes a second, which a worker without a key saves. Use a
            # thread, so that the event loop does not stand still.
            await asyncio.to_thread(self._dialect.open)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._batched is not None:
            await self._batched.aclose()
        await self._governor.aclose()
        await self._dialect.close()

    async def text(
        self,
        *,
        prompt: Prompt,
        max_tokens: int,
        system: str = "",
        cache: bool = False,
        batch: bool = False,
    ) -> Answer:
        """Return the model's answer to `prompt` as text. Raises StepFailed as `parse` does."""
        question = Question.of(system, prompt, max_tokens, cache=cache)
        given = await self._in_batch(question) if batch else None
        with self._observed(given) as request:
            answer = given or await self._answer(request, question)
            require_whole(request, answer.stop_reason)
            request.end = ANSWERED
            return answer

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
        """Return the model's answer to `prompt` as an `output`, which its JSON schema asks for.

        Raises StepFailed when there is no key, the API fails, the model declines, or its answer is
        cut off or not an `output`. Its reason holds neither the key nor the API's own text.
        """
        question = Question.of(system, prompt, max_tokens, cache=cache, output=output)
        given = await self._in_batch(question) if batch else None
        with self._observed(given) as request:
            answer = given or await self._answer(request, question)
            require_whole(request, answer.stop_reason)
            try:
                parsed = output.model_validate_json(_bare(answer.text))
            except ValidationError as error:
                request.end = MALFORMED
                _log.debug("unreadable answer of %s: %r", self._identity, answer.text[:500])
                raise StepFailed(
                    "the language model's answer was not in the form asked for"
                ) from error
            request.end = ANSWERED
            return parsed

    @asynccontextmanager
    async def stream(
        self, *, system: str, prompt: Prompt, max_tokens: int, cache: bool = False
    ) -> AsyncIterator[StreamedAnswer]:
        """Stream the model's answer; leaving the context stops it.

        Entering raises StepFailed as `parse` does. Iterating raises it at the end of an answer
        that is not whole.
        """
        question = Question.of(system, prompt, max_tokens, cache=cache)
        with self._observed() as request:
            self._check(request)

            async def begin(permit: Permit) -> tuple[Permit, Pieces]:
                async with limited(request):
                    with translated(request, self._timeout, self._dialect.errors):
                        return permit, await self._dialect.begin(question)

            permit, pieces = await self._tried(request, begin, question)
            spoken = StreamedAnswer(self._timeout, request, pieces, self._dialect.errors)
            try:
                async with limited(request):
                    yield spoken
                # A step may also leave a stream before its end.
                request.end = request.end or ANSWERED
            finally:
                end = request.end or CANCELLED
                about = question.estimate + spoken.estimate
                self._settle(permit, request.outcome, end, spoken.usage, about)
                await pieces.close()
                self._note(spoken.usage, about)

    async def warm(self, *, system: str = "") -> bool:
        """Open a connection; with `system` ask for one token, so that the API may cache it.

        Returns whether the API has answered. Raises nothing: the first question tries again.
        """
        if not self._dialect.is_open:
            return False
        title = self._dialect.title
        try:
            async with asyncio.timeout(_WARMING):
                if system:
                    question = Question.of(system, ".", 1, cache=True)
                    with self._observed() as request:
                        await self._answer(request, question)
                        request.end = ANSWERED
                else:
                    await self._dialect.reach()
        except self._dialect.errors.status as error:
            if error.status_code in _KEY_REFUSED:
                _log.warning("%s refuses the key of %s", title, self._identity)
                return False
            return True  # it answers, and its connection is open: not each gateway lists models
        except (
            StepFailed,
            ExecutorUnavailable,
            OSError,
            ValueError,
            self._dialect.errors.any,
        ) as error:
            _log.info("%s is not warm: %s", title, type(error).__name__)
            return False
        return True

    def _observed(self, given: Answer | None = None) -> AbstractContextManager[ModelRequest]:
        """Open for a request, which is not counted if a batch has given its answer."""
        observer = self._observer if given is None else Unwatched()
        return observed(observer, self._dialect.title, self._patience)

    async def _in_batch(self, question: Question) -> Answer | None:
        """Return an answer of the batch API; None if the question is to be asked directly."""
        if self._batched is None or self._dialect.lacks or not self._dialect.is_open:
            return None
        return await self._batched.answer(question)

    async def _answer(self, request: ModelRequest, question: Question) -> Answer:
        """Return an answer, which may not be whole: its tokens are counted all the same."""
        self._check(request)

        async def ask(permit: Permit) -> Answer:
            async with limited(request):
                with translated(request, self._timeout, self._dialect.errors):
                    answer = await self._dialect.ask(question)
            # The SDKs check no body: from one that is no message they make an empty object.
            if answer is None:
                raise unreadable(request)
            about = question.estimate + estimated(answer.text)
            self._settle(permit, CallOutcome.ANSWERED, ANSWERED, answer.usage, about)
            return answer

        answer = await self._tried(request, ask, question)
        self._note(answer.usage, question.estimate + estimated(answer.text))
        return answer

    async def _tried(
        self,
        request: ModelRequest,
        attempt: Callable[[Permit], Awaitable[T]],
        question: Question,
    ) -> T:
        return await with_retries(
            self._governor,
            request,
            attempt,
            lambda: status_failure(request) if request.status else None,
            tokens=question.estimate + question.max_tokens,
            cost_of_lost=question.estimate,
        )

    def _check(self, request: ModelRequest) -> None:
        """Raise StepFailed when the API cannot be asked."""
        if self._dialect.lacks:
            request.end = NO_KEY
            raise StepFailed(self._dialect.lacks, retry=False)
        if not self._dialect.is_open:
            raise RuntimeError(f"{type(self).__name__} is used outside its async with block")

    @staticmethod
    def _settle(permit: Permit, outcome: CallOutcome, end: str, usage: Usage, about: int) -> None:
        """Free the permit. Where the API reports no tokens, `about` so many count."""
        tokens, cached = usage.charged or about, usage.cache_read_tokens
        permit.settle(outcome, end, tokens=tokens, cached_tokens=cached)

    def _note(self, usage: Usage, about: int) -> None:
        """Count tokens for the step: as for its budget `about` so many, if none are reported."""
        self._observer.spent(usage)
        spend(llm_tokens=usage.computed if usage.charged else about)


def _bare(text: str) -> str:
    """Return JSON without the fence that a model without schemas may put around it."""
    inside = text.strip()
    if inside.startswith("```") and inside.endswith("```"):
        return inside.partition("\n")[2].removesuffix("```")
    return inside
