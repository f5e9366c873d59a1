"""One request to the Messages API: its budget, its tries, and what its answers mean."""

from __future__ import annotations

import asyncio
import email.utils
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..domain import FailureReason
from ..domain.errors import StepFailed
from ..worker.step_deadline import seconds_left
from .provider_observer import (
    CANCELLED,
    CUT_OFF,
    DECLINED,
    OVERLOADED,
    RATE_LIMITED,
    REFUSED,
    SERVER_ERROR,
    TIMEOUT,
    UNREACHABLE,
    UNREADABLE,
    LanguageModelObserver,
)

if TYPE_CHECKING:
    from anthropic.types import Message

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
"""The header in which the SDK counts its repetitions of a request."""

_MARGIN: Final = 1.0
"""Seconds before the end of a step's try at which a request ends, so that the step has its reason.

A tenth of what is left, and so much at most.
"""
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
class MessagesRequest:
    """How a request went, all of its tries together."""

    began: float
    budget: float | None
    """Seconds that it may take; None for any time."""
    end: str = ""
    """One of `provider_observer.ENDS`; empty until it is known."""
    retries: int = 0
    status: int = 0
    """The status of the last answer that was an error; 0 without one."""
    retry_after: float = 0.0
    """Seconds of that answer's `retry-after`, when they are more than the budget had left."""

    @property
    def left(self) -> float | None:
        """Seconds of the budget that are left."""
        return None if self.budget is None else self.began + self.budget - time.perf_counter()


CURRENT: Final[ContextVar[MessagesRequest | None]] = ContextVar(
    "headstart_messages_request", default=None
)
"""The request that is made in this context."""


async def note_try(request: Any) -> None:
    """Note a try. The HTTP library calls this before each."""
    if (current := CURRENT.get()) is not None:
        current.retries = int(request.headers.get(_RETRIES, 0))


async def note_answer(response: Any) -> None:
    """Note an error, and keep the SDK from a pause that exceeds the budget."""
    current = CURRENT.get()
    if current is None or response.status_code < _REFUSED:
        return
    current.status = response.status_code
    pause, left = retry_after(response.headers), current.left
    if left is not None and pause >= left:
        current.retry_after = pause
        response.headers["x-should-retry"] = "false"  # the SDK obeys it


def retry_after(headers: Mapping[str, str]) -> float:
    """Read the delay that an answer asks for, in seconds; 0 without one."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return email.utils.mktime_tz(date) - time.time() if date else 0.0


@contextmanager
def observed(observer: LanguageModelObserver) -> Iterator[MessagesRequest]:
    """Open for one request, which `observer` receives when this is left, however it ended."""
    left = seconds_left()
    budget = None if left is None else left - min(_MARGIN, left / 10)
    request = MessagesRequest(time.perf_counter(), budget)
    token = CURRENT.set(request)
    try:
        yield request
    finally:
        # A stream that its step never closed ends in another context.
        with suppress(ValueError):
            CURRENT.reset(token)
        took = time.perf_counter() - request.began
        observer.requested(request.end or CANCELLED, took, request.retries)


@asynccontextmanager
async def limited(request: MessagesRequest) -> AsyncIterator[None]:
    """Stop the request at the end of its budget. Raises StepFailed with the last known reason."""
    limit = asyncio.timeout(request.left)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        if request.status:
            request.end = end_of(request.status)
            raise status_failure(request) from error
        request.end = TIMEOUT
        reason = f"the Anthropic API did not answer within {request.budget:.3g} s"
        raise _away(reason) from error


@contextmanager
def translated(request: MessagesRequest, timeout: float) -> Iterator[None]:
    """Raise StepFailed for any error of the SDK, and note how the request ended.

    `timeout` is the SDK's own, in seconds, for each try.
    """
    import anthropic
    import httpx2

    try:
        yield
    except anthropic.APIStatusError as error:
        request.end, request.status = end_of(error.status_code), error.status_code
        _log.debug("the Anthropic API answered %d", error.status_code, exc_info=True)
        raise status_failure(request) from error
    # In the middle of a stream the HTTP library's own errors come through the SDK.
    except (anthropic.APITimeoutError, httpx2.TimeoutException) as error:
        request.end = TIMEOUT
        reason = f"the Anthropic API did not answer within {timeout:g} s"
        raise _away(reason) from error
    except (anthropic.APIConnectionError, httpx2.RequestError) as error:
        request.end = UNREACHABLE
        _log.debug("the Anthropic API could not be reached", exc_info=True)
        raise _away("the Anthropic API could not be reached") from error
    # The SDK passes on JSONDecodeError of a wrong body, and UnicodeEncodeError of a wrong key; both
    # are ValueErrors.
    except (anthropic.AnthropicError, ValueError) as error:
        request.end = UNREADABLE
        _log.debug("the Anthropic SDK failed", exc_info=True)
        raise StepFailed("the Anthropic API's answer could not be read") from error


def require_whole(request: MessagesRequest, stop_reason: str | None) -> None:
    """Raise StepFailed for a stop reason other than those of whole answers."""
    if stop_reason in _WHOLE:
        return
    if not stop_reason:
        request.end = UNREADABLE
        raise _away("the language model's answer broke off")
    # The same request would end in the same way, so there is no other try.
    if stop_reason == "refusal":
        request.end = DECLINED
        raise StepFailed("the language model declined to answer", retry=False)
    request.end = CUT_OFF
    # Unknown names are text of the API, which no message repeats.
    how = _UNFINISHED.get(stop_reason, "is unfinished: it stopped for an unknown reason")
    raise StepFailed(f"the language model's answer {how}", retry=False)


def tokens_of(message: Message) -> tuple[int, int]:
    """Count the tokens of the question and of the answer; 0 where the unchecked body has none."""
    usage = getattr(message, "usage", None)
    counts = (getattr(usage, name, None) for name in ("input_tokens", "output_tokens"))
    question, answer = (count if isinstance(count, int) else 0 for count in counts)
    return question, answer


def end_of(status: int) -> str:
    """Name the end of a request with this status, as metrics do."""
    if status in _ENDS:
        return _ENDS[status]
    return REFUSED if _REFUSED <= status < _SERVER_ERROR else SERVER_ERROR


def status_failure(request: MessagesRequest) -> StepFailed:
    """Return the failure for the request's last status; it holds no text of the API."""
    status = request.status
    if status < _REFUSED:
        return _away("the Anthropic API broke its answer off")
    meaning = _MEANINGS.get(status)
    reason = f"the Anthropic API answered {status}" + (f" ({meaning})" if meaning else "")
    if request.retry_after:
        # Another try of the step would begin before that delay, and be refused.
        return _away(f"{reason}, retry after {request.retry_after:.0f} s", retry=False)
    # Every other 4xx means that the request is wrong: a retry would fail again.
    passing = status >= _SERVER_ERROR or status in (408, 409, 429)
    return _away(reason) if passing else StepFailed(reason, retry=False)


def _away(error: str, *, retry: bool = True) -> StepFailed:
    """Return the failure of a request that the same API may answer later."""
    return StepFailed(error, retry=retry, failure_reason=FailureReason.DEPENDENCY_AWAY)
