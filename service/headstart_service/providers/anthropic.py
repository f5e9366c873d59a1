"""Claude Haiku through the Anthropic SDK, in structured output."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from pydantic import BaseModel, ValidationError

from ..domain import CallOutcome
from ..domain.errors import StepFailed
from ..pipeline.identity import printable
from ..worker.cost_meter import spend
from .governor import Governor, GovernorRules
from .local_permits import LocalPermits
from .messages_request import (
    MessagesRequest,
    limited,
    observed,
    require_whole,
    status_failure,
    tokens_of,
    translated,
)
from .permit import Permit
from .provider_observer import (
    ANSWERED,
    CANCELLED,
    MALFORMED,
    NO_KEY,
    UNREADABLE,
    LanguageModelObserver,
    Unwatched,
)
from .retries import with_retries

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic, AsyncStream
    from anthropic.types import Message, RawMessageStreamEvent

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

API: Final = "the Anthropic API"
"""How messages call it."""
_TRY_TIMEOUT: Final = 20.0
_LEASE: Final = 60.0
"""Seconds until the permit of a call is free whose worker was killed: a call takes less."""
_CHARACTERS_A_TOKEN: Final = 4

_log = logging.getLogger(__name__)


class HaikuModel:
    """A language model behind the Messages API. Use it as an async context manager."""

    def __init__(
        self,
        *,
        api_key: str | None,
        model: str,
        base_url: str | None = None,
        timeout: float = _TRY_TIMEOUT,
        patience: float = 45.0,
        open_telemetry: Mapping[str, Any] | None = None,
        observer: LanguageModelObserver | None = None,
        governor: Governor | None = None,
    ) -> None:
        """Ask `model` with `api_key`; without a key every request fails and none is sent.

        `timeout` is for each try, in seconds. Timeouts, lost connections, 408, 409, 429 and 5xx
        lead to other tries until the step's time ends. Outside of a step they begin within
        `patience` seconds. A pause that is longer than that is not begun. Each try needs a permit
        of the `governor`, by default one of its own. `base_url` defaults to ANTHROPIC_BASE_URL,
        else to Anthropic's own. `open_telemetry` is the SDK's option of that name: how it traces
        what it sends.
        """
        self._api_key = api_key.strip() if api_key else ""
        self._model = model
        self._base_url = base_url
        self._timeout = timeout
        self._patience = patience
        self._open_telemetry = open_telemetry
        self._client: AsyncAnthropic | None = None
        self._observer = observer or Unwatched()
        self._governor = governor or Governor(
            model, API, LocalPermits(), GovernorRules(lease=_LEASE)
        )

    @property
    def identity(self) -> str:
        """The language model's name: a gateway at another address gives the same model."""
        return printable(self._model)

    async def __aenter__(self) -> Self:
        if self._api_key:
            # Import the SDK here: it takes a second, which a worker without a key saves. Use a
            # thread, so that the event loop does not stand still.
            self._client = await asyncio.to_thread(self._connect)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._governor.aclose()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def parse(self, *, system: str, prompt: str, output: type[M], max_tokens: int) -> M:
        """Return the model's answer to `prompt` as an `output`, which its JSON schema asks for.

        Raises StepFailed when there is no key, the API fails, the model declines, or its answer is
        cut off or not an `output`. Its reason holds neither the key nor the API's own text.
        """
        with observed(self._observer, self._patience) as request:
            return await self._parse(request, system, prompt, output, max_tokens)

    @asynccontextmanager
    async def stream(
        self, *, system: str, prompt: str, max_tokens: int
    ) -> AsyncIterator[SpokenText]:
        """Stream the model's answer; leaving the context stops it.

        Entering raises StepFailed as `parse` does. Iterating raises it at the end of an answer
        that is not whole.
        """
        question = _estimated(system, prompt)
        with observed(self._observer, self._patience) as request:
            client = self._connected(request)

            async def begin(permit: Permit) -> tuple[Permit, AsyncStream[RawMessageStreamEvent]]:
                async with limited(request):
                    with translated(request, self._timeout):
                        return permit, await client.messages.create(
                            model=self._model,
                            max_tokens=max_tokens,
                            system=system,
                            messages=[{"role": "user", "content": prompt}],
                            stream=True,
                        )

            permit, events = await self._tried(request, begin, question, max_tokens)
            spoken = SpokenText(self._timeout, request, events)
            try:
                async with limited(request):
                    yield spoken
                # A step may also leave a stream before its end.
                request.end = request.end or ANSWERED
            finally:
                used = spoken.input_tokens + spoken.output_tokens
                end = request.end or CANCELLED
                permit.settle(request.outcome, end, tokens=used or question)
                await events.close()
                self._observer.spent(spoken.input_tokens, spoken.output_tokens)
                spend(llm_tokens=used)

    async def _tried(
        self,
        request: MessagesRequest,
        attempt: Callable[[Permit], Awaitable[T]],
        question: int,
        max_tokens: int,
    ) -> T:
        return await with_retries(
            self._governor,
            request,
            attempt,
            lambda: status_failure(request) if request.status else None,
            tokens=question + max_tokens,
            cost_of_lost=question,
        )

    def _connected(self, request: MessagesRequest) -> AsyncAnthropic:
        """The SDK's client. Raises StepFailed when there is no key."""
        if not self._api_key:
            request.end = NO_KEY
            raise StepFailed("no Anthropic API key: set ANTHROPIC_API_KEY", retry=False)
        if self._client is None:
            raise RuntimeError("HaikuModel is used outside its async with block")
        return self._client

    async def _parse(
        self, request: MessagesRequest, system: str, prompt: str, output: type[M], max_tokens: int
    ) -> M:
        client = self._connected(request)

        async def ask(permit: Permit) -> Message:
            async with limited(request):
                message = await self._ask(client, request, system, prompt, output, max_tokens)
            permit.settle(CallOutcome.ANSWERED, ANSWERED, tokens=sum(tokens_of(message)))
            return message

        message = await self._tried(request, ask, _estimated(system, prompt), max_tokens)
        question, answer = tokens_of(message)
        self._observer.spent(question, answer)
        spend(llm_tokens=question + answer)
        require_whole(request, getattr(message, "stop_reason", None))
        text = "".join(block.text for block in message.content if block.type == "text")
        try:
            parsed = output.model_validate_json(text)
        except ValidationError as error:
            request.end = MALFORMED
            _log.debug("unreadable answer of %s: %r", self._model, text[:500])
            raise StepFailed("the language model's answer was not in the form asked for") from error
        request.end = ANSWERED
        return parsed

    def _connect(self) -> AsyncAnthropic:
        from anthropic import AsyncAnthropic

        options: dict[str, Any] = {}
        if self._open_telemetry is not None:
            options["open_telemetry"] = self._open_telemetry
        return AsyncAnthropic(
            api_key=self._api_key,
            base_url=self._base_url,
            timeout=self._timeout,
            max_retries=0,  # `with_retries` tries again, by a permit each
            **options,
        )

    async def _ask(
        self,
        client: AsyncAnthropic,
        request: MessagesRequest,
        system: str,
        prompt: str,
        output: type[BaseModel],
        max_tokens: int,
    ) -> Message:
        import anthropic

        with translated(request, self._timeout):
            # The same request as of messages.parse. That method parses the text before the stop
            # reason is known, so it would take a refusal for a malformed answer.
            response = await client.messages.with_raw_response.create(
                model=self._model,
                max_tokens=max_tokens,
                system=system,
                messages=[{"role": "user", "content": prompt}],
                output_config={
                    "format": {"type": "json_schema", "schema": anthropic.transform_schema(output)}
                },
            )
            message = await response.parse()
        # The SDK checks no body: from one that is no message it makes an empty object, or a string.
        if not isinstance(getattr(message, "content", None), list):
            request.end = UNREADABLE
            raise StepFailed("the Anthropic API's answer could not be read")
        return message


def _estimated(*texts: str) -> int:
    """Return about how many tokens a question has."""
    return sum(map(len, texts)) // _CHARACTERS_A_TOKEN


class SpokenText:
    """An answer while it is given: iterate over its text."""

    def __init__(
        self,
        timeout: float,
        request: MessagesRequest,
        events: AsyncStream[RawMessageStreamEvent],
    ) -> None:
        self.input_tokens = 0
        self.output_tokens = 0
        self.stop_reason = ""
        self._timeout = timeout
        self._request = request
        self._events = events

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the text in pieces. Raises StepFailed at the end of an answer that is not whole."""
        while True:
            # Around the SDK alone: an error that the step raises between two pieces stays as it is.
            with translated(self._request, self._timeout):
                event = await anext(self._events, None)
            if event is None:
                break
            if event.type == "message_start":
                self.input_tokens, self.output_tokens = tokens_of(event.message)
            elif event.type == "message_delta":
                self.output_tokens = event.usage.output_tokens
                self.stop_reason = event.delta.stop_reason or ""
            elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                yield event.delta.text
        require_whole(self._request, self.stop_reason)
