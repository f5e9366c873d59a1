"""Claude Haiku through the Anthropic SDK, in structured output."""

from __future__ import annotations

import asyncio
import email.utils
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from pydantic import BaseModel, ValidationError

from ..domain.errors import StepFailed
from ..pipeline.identity import printable
from ..worker.cost_meter import spend
from ..worker.step_deadline import seconds_left
from .provider_observer import (
    ANSWERED,
    CANCELLED,
    CUT_OFF,
    DECLINED,
    MALFORMED,
    NO_KEY,
    OVERLOADED,
    RATE_LIMITED,
    REFUSED,
    SERVER_ERROR,
    TIMEOUT,
    UNREACHABLE,
    UNREADABLE,
    LanguageModelObserver,
    Unwatched,
)

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic, AsyncStream
    from anthropic.types import Message, RawMessageStreamEvent

M = TypeVar("M", bound=BaseModel)

_MEANINGS = {
    400: "bad request",
    401: "API key refused",
    402: "billing",
    403: "not permitted",
    404: "no such model",
    408: "timeout",
    413: "request too large",
    429: "rate limited",
    500: "internal error",
    503: "unavailable",
    504: "timeout",
    529: "overloaded",
}
"""Of the API's status codes: https://docs.claude.com/en/api/errors. Bodies are not repeated: they
may hold what callers must not read."""

_REFUSED = 400
"""The first status that blames the request. A lower one is of a stream that ended in an error."""
_SERVER_ERROR = 500
"""The first status that blames the server."""

_ENDS = {408: TIMEOUT, 429: RATE_LIMITED, 504: TIMEOUT, 529: OVERLOADED}
_RETRIES = "x-stainless-retry-count"
"""The header in which the SDK says how often it has repeated a request."""

_MARGIN: Final = 1.0
"""Seconds before the end of a step's try at which a request ends, so that the step has its reason:
a tenth of what is left, and so much at most."""
_WHOLE = ("end_turn", "stop_sequence")
"""The stop reasons of answers that are whole."""
_UNFINISHED = {
    "max_tokens": "was cut off at its token limit",
    "model_context_window_exceeded": "was cut off at the end of its context window",
    "pause_turn": "is unfinished: pause_turn",
    "tool_use": "is unfinished: tool_use",
}
"""Other stop reasons: https://docs.claude.com/en/api/handling-stop-reasons."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Asked:
    """How a request went, its repetitions together."""

    began: float
    budget: float | None
    """Seconds that it may take; None for any time."""
    end: str = ""
    """One of `observe.ENDS`; none while it is not known."""
    retries: int = 0
    status: int = 0
    """That of the last answer that was an error; 0 without one."""
    retry_after: float = 0.0
    """Seconds that this answer asked for, when they are more than the budget had left."""

    @property
    def left(self) -> float | None:
        """Seconds of the budget that are left."""
        return None if self.budget is None else self.began + self.budget - time.perf_counter()


_ASKED: Final[ContextVar[_Asked | None]] = ContextVar("headstart_asked", default=None)
"""The request that is made in this context."""


async def _sent(request: Any) -> None:
    """Take note of a try: the HTTP library calls it before it sends one."""
    if (asked := _ASKED.get()) is not None:
        asked.retries = int(request.headers.get(_RETRIES, 0))


async def _answered(response: Any) -> None:
    """Take note of an error, and keep the SDK from a pause that the step has no time for."""
    asked = _ASKED.get()
    if asked is None or response.status_code < _REFUSED:
        return
    asked.status = response.status_code
    pause, left = _retry_after(response.headers), asked.left
    if left is not None and pause >= left:
        asked.retry_after = pause
        response.headers["x-should-retry"] = "false"  # the SDK obeys it


def _retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that an answer asks its caller to wait; 0 when it does not."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return email.utils.mktime_tz(date) - time.time() if date else 0.0


class HaikuModel:
    """A language model behind the Messages API. Use it as an async context manager."""

    def __init__(
        self,
        *,
        api_key: str | None,
        model: str,
        base_url: str | None = None,
        timeout: float = 20.0,
        max_retries: int = 2,
        open_telemetry: Mapping[str, Any] | None = None,
        observer: LanguageModelObserver | None = None,
    ) -> None:
        """Ask `model` with `api_key`; without a key every request fails and none is sent.

        `timeout` is for each try, in seconds. The SDK itself tries again, `max_retries` times,
        after timeouts, lost connections, 408, 409, 429 and 5xx. Within a step all of it ends before
        the step's try does, and a pause that is longer than that is not begun. `base_url` defaults
        to ANTHROPIC_BASE_URL, else to Anthropic's own. `open_telemetry` is the SDK's option of that
        name: how it traces what it sends.
        """
        self._api_key = api_key.strip() if api_key else ""
        self._model = model
        self._base_url = base_url
        self._timeout = timeout
        self._max_retries = max_retries
        self._open_telemetry = open_telemetry
        self._client: AsyncAnthropic | None = None
        self._observer = observer or Unwatched()

    @property
    def identity(self) -> str:
        """The language model's name: a gateway at another address gives the same model."""
        return printable(self._model)

    async def __aenter__(self) -> Self:
        if self._api_key:
            # Imported here because it takes a second, which a worker without a key need not pay,
            # and in a thread because a loop must not stand still that long.
            self._client = await asyncio.to_thread(self._connect)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def parse(self, *, system: str, prompt: str, output: type[M], max_tokens: int) -> M:
        """Return the model's answer to `prompt` as an `output`, which its JSON schema asks for.

        Raises StepFailed, with a reason that holds neither the key nor the API's own text, when
        there is no key, the API fails, the model declines, or its answer is cut off or not an
        `output`.
        """
        with self._observed() as asked:
            return await self._parse(asked, system, prompt, output, max_tokens)

    @asynccontextmanager
    async def stream(
        self, *, system: str, prompt: str, max_tokens: int
    ) -> AsyncIterator[SpokenText]:
        """Stream the model's answer; leaving the context stops it.

        Entering raises StepFailed as `parse` does. Iterating raises it at the end of an answer
        that is not whole.
        """
        with self._observed() as asked:
            client = self._connected(asked)
            async with self._limited(asked):
                with self._translated(asked):
                    events = await client.messages.create(
                        model=self._model,
                        max_tokens=max_tokens,
                        system=system,
                        messages=[{"role": "user", "content": prompt}],
                        stream=True,
                    )
                spoken = SpokenText(self, asked, events)
                try:
                    yield spoken
                    # Also of one that the step has heard enough of.
                    asked.end = asked.end or ANSWERED
                finally:
                    await events.close()
                    self._observer.spent(spoken.input_tokens, spoken.output_tokens)
                    spend(llm_tokens=spoken.input_tokens + spoken.output_tokens)

    @contextmanager
    def _observed(self) -> Iterator[_Asked]:
        """Count a request, however it ends."""
        left = seconds_left()
        asked = _Asked(
            time.perf_counter(), None if left is None else left - min(_MARGIN, left / 10)
        )
        token = _ASKED.set(asked)
        try:
            yield asked
        finally:
            with suppress(
                ValueError
            ):  # of a stream that was never left, and ends in another context
                _ASKED.reset(token)
            took = time.perf_counter() - asked.began
            self._observer.asked(asked.end or CANCELLED, took, asked.retries)

    @asynccontextmanager
    async def _limited(self, asked: _Asked) -> AsyncIterator[None]:
        """Stop the request at the end of its budget, with what is known of it as the reason."""
        limit = asyncio.timeout(asked.left)
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            if asked.status:
                asked.end = _end(asked.status)
                raise _status_failure(asked) from error
            asked.end = TIMEOUT
            reason = f"the Anthropic API did not answer within {asked.budget:.3g} s"
            raise StepFailed(reason) from error

    def _connected(self, asked: _Asked) -> AsyncAnthropic:
        """The SDK's client. Raises StepFailed when there is no key."""
        if not self._api_key:
            asked.end = NO_KEY
            raise StepFailed("no Anthropic API key: set ANTHROPIC_API_KEY", retry=False)
        if self._client is None:
            raise RuntimeError("HaikuModel is used outside its async with block")
        return self._client

    async def _parse(
        self, asked: _Asked, system: str, prompt: str, output: type[M], max_tokens: int
    ) -> M:
        client = self._connected(asked)
        async with self._limited(asked):
            message = await self._ask(client, asked, system, prompt, output, max_tokens)
        question, answer = _tokens(message)
        self._observer.spent(question, answer)
        spend(llm_tokens=question + answer)
        _require_whole(asked, getattr(message, "stop_reason", None))
        text = "".join(block.text for block in message.content if block.type == "text")
        try:
            parsed = output.model_validate_json(text)
        except ValidationError as error:
            asked.end = MALFORMED
            _log.debug("unreadable answer of %s: %r", self._model, text[:500])
            raise StepFailed("the language model's answer was not in the form asked for") from error
        asked.end = ANSWERED
        return parsed

    def _connect(self) -> AsyncAnthropic:
        from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient

        options: dict[str, Any] = {}
        if self._open_telemetry is not None:
            options["open_telemetry"] = self._open_telemetry
        return AsyncAnthropic(
            api_key=self._api_key,
            base_url=self._base_url,
            timeout=self._timeout,
            max_retries=self._max_retries,
            http_client=DefaultAsyncHttpxClient(
                event_hooks={"request": [_sent], "response": [_answered]}
            ),
            **options,
        )

    async def _ask(
        self,
        client: AsyncAnthropic,
        asked: _Asked,
        system: str,
        prompt: str,
        output: type[BaseModel],
        max_tokens: int,
    ) -> Message:
        import anthropic

        with self._translated(asked):
            # What messages.parse sends. That method reads the text before it shows the stop
            # reason, so a refusal would look like a malformed answer.
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
        # The SDK checks no body: of one that is no message it makes a hollow object, or a string.
        if not isinstance(getattr(message, "content", None), list):
            asked.end = UNREADABLE
            raise StepFailed("the Anthropic API's answer could not be read")
        return message

    @contextmanager
    def _translated(self, asked: _Asked) -> Iterator[None]:
        """Raise StepFailed for whatever the SDK raises, and note how the request ended."""
        import anthropic
        import httpx2

        try:
            yield
        except anthropic.APIStatusError as error:
            asked.end, asked.status = _end(error.status_code), error.status_code
            _log.debug("the Anthropic API answered %d", error.status_code, exc_info=True)
            raise _status_failure(asked) from error
        # In the middle of a stream the HTTP library's own errors come through the SDK.
        except (anthropic.APITimeoutError, httpx2.TimeoutException) as error:
            asked.end = TIMEOUT
            reason = f"the Anthropic API did not answer within {self._timeout:g} s"
            raise StepFailed(reason) from error
        except (anthropic.APIConnectionError, httpx2.RequestError) as error:
            asked.end = UNREACHABLE
            _log.debug("the Anthropic API could not be reached", exc_info=True)
            raise StepFailed("the Anthropic API could not be reached") from error
        # JSONDecodeError and UnicodeEncodeError, of a body or key that is not what it should be,
        # come through the SDK as they are; both are ValueErrors.
        except (anthropic.AnthropicError, ValueError) as error:
            asked.end = UNREADABLE
            _log.debug("the Anthropic SDK failed", exc_info=True)
            raise StepFailed("the Anthropic API's answer could not be read") from error


class SpokenText:
    """An answer while it is given: iterate over its text."""

    def __init__(
        self, model: HaikuModel, asked: _Asked, events: AsyncStream[RawMessageStreamEvent]
    ) -> None:
        self.input_tokens = 0
        self.output_tokens = 0
        self.stop_reason = ""
        self._model = model
        self._asked = asked
        self._events = events

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the text in pieces. Raises StepFailed at the end of an answer that is not whole."""
        while True:
            # Around the SDK alone: what the step raises between two pieces is its own.
            with self._model._translated(self._asked):  # noqa: SLF001  # one concept, two classes
                event = await anext(self._events, None)
            if event is None:
                break
            if event.type == "message_start":
                self.input_tokens, self.output_tokens = _tokens(event.message)
            elif event.type == "message_delta":
                self.output_tokens = event.usage.output_tokens
                self.stop_reason = event.delta.stop_reason or ""
            elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                yield event.delta.text
        _require_whole(self._asked, self.stop_reason)


def _require_whole(asked: _Asked, stop_reason: str | None) -> None:
    """Raise StepFailed for a stop reason other than those of whole answers."""
    if stop_reason in _WHOLE:
        return
    if not stop_reason:
        asked.end = UNREADABLE
        raise StepFailed("the language model's answer broke off")
    # The same question would end in the same way: no other try.
    if stop_reason == "refusal":
        asked.end = DECLINED
        raise StepFailed("the language model declined to answer", retry=False)
    asked.end = CUT_OFF
    # Names that are not known are not repeated, as no other text of the API is.
    how = _UNFINISHED.get(stop_reason, "is unfinished: it stopped for an unknown reason")
    raise StepFailed(f"the language model's answer {how}", retry=False)


def _tokens(message: Message) -> tuple[int, int]:
    """Of the question and of the answer; 0 where a body that nobody has checked does not say."""
    usage = getattr(message, "usage", None)
    counts = (getattr(usage, name, None) for name in ("input_tokens", "output_tokens"))
    question, answer = (count if isinstance(count, int) else 0 for count in counts)
    return question, answer


def _end(status: int) -> str:
    """What metrics call an answer of this status."""
    if status in _ENDS:
        return _ENDS[status]
    return REFUSED if _REFUSED <= status < _SERVER_ERROR else SERVER_ERROR


def _status_failure(asked: _Asked) -> StepFailed:
    status = asked.status
    if status < _REFUSED:
        return StepFailed("the Anthropic API broke its answer off")
    meaning = _MEANINGS.get(status)
    reason = f"the Anthropic API answered {status}" + (f" ({meaning})" if meaning else "")
    if asked.retry_after:
        # Another try of the step would begin, and be refused, long before that.
        return StepFailed(f"{reason}, retry after {asked.retry_after:.0f} s", retry=False)
    # The rest of 4xx says that the request is wrong, and it would be the same again.
    passing = status >= _SERVER_ERROR or status in (408, 409, 429)
    return StepFailed(reason, retry=passing)
