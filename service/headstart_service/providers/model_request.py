"""One request to a language model: its budget, its tries, and what its answers mean."""

from __future__ import annotations

import asyncio
import email.utils
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from ..domain import CallOutcome, FailureReason
from ..domain.errors import StepFailed
from ..worker.step_deadline import seconds_left
from .governor import NotCalled
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
"""Of the APIs' status codes: https://docs.claude.com/en/api/errors, and OpenAI's. Bodies are not
repeated: they may hold what callers must not read."""

_OK = 200
_REFUSED = 400
"""The first status that blames the request. A lower one is of a stream that ended in an error."""
_SERVER_ERROR = 500
"""The first status that blames the server."""

_ENDS = {408: TIMEOUT, 429: RATE_LIMITED, 504: TIMEOUT, 529: OVERLOADED}
_OVERLOADS = (429, 503, 529)
"""The statuses of an API that has too much to do: all workers pause."""
_AGAIN = (408, 409, *_OVERLOADS)
"""The statuses below 500 after which the same request may succeed, and others."""

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


@dataclass(frozen=True, slots=True)
class SdkErrors:
    """The classes of an SDK's errors. Anthropic's and OpenAI's have the same names."""

    status: Any
    timeout: Any
    connection: Any
    api: Any
    """In the middle of a stream: the API reports that it failed."""
    any: Any

    @classmethod
    def of(cls, sdk: Any, base: str) -> SdkErrors:
        """Return those of a module, whose `base` all others are."""
        return cls(
            sdk.APIStatusError,
            sdk.APITimeoutError,
            sdk.APIConnectionError,
            sdk.APIError,
            getattr(sdk, base),
        )


@dataclass(slots=True)
class ModelRequest:
    """How a request went, all of its tries together."""

    title: str
    """How messages call the API."""
    began: float
    patience: float
    """Seconds for all tries, outside of a step."""
    margin: float = 0.0
    """Seconds before the end of its step's try at which it ends."""
    end: str = ""
    """How the last try ended, one of `provider_observer.ENDS`; empty until it is known."""
    tries: int = 0
    """How many were sent."""
    status: int = 0
    """The status of the last answer that was an error; 0 without one."""
    fresh: bool = False
    """Whether that is the answer to the last try."""
    retry_after: float = 0.0
    """Seconds that this answer asks callers to wait."""
    whole: float = 0.0
    """Seconds that it had at its beginning."""
    hurried: bool = False
    """Whether the last try had less time than those before it: its end shows nothing of the API."""

    @property
    def step_left(self) -> float | None:
        """Seconds until the request must end for its step; None outside of a step."""
        left = seconds_left()
        return None if left is None else left - self.margin

    @property
    def left(self) -> float:
        """Seconds in which other tries may begin."""
        left = self.step_left
        return self.began + self.patience - time.perf_counter() if left is None else left

    @property
    def waits(self) -> bool:
        """Whether the last answer asks for a longer wait than the request had in all."""
        return self.fresh and 0 < self.whole <= self.retry_after

    @property
    def outcome(self) -> CallOutcome:
        """What the last try has shown of the API."""
        if self.fresh and self.status in _OVERLOADS:
            return CallOutcome.REFUSED
        if self.end in (TIMEOUT, UNREACHABLE, SERVER_ERROR) and not self.hurried:
            return CallOutcome.FAILED
        return CallOutcome.LOST if not self.end or self.hurried else CallOutcome.ANSWERED

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later."""
        if self.fresh:
            return self.status in _AGAIN or not _REFUSED <= self.status < _SERVER_ERROR
        return self.end in (TIMEOUT, UNREACHABLE)

    def begin_try(self) -> None:
        """Count a try, and forget how the one before ended."""
        self.tries += 1
        self.end, self.fresh, self.retry_after, self.hurried = "", False, 0.0, False

    def note_status(self, status: int, headers: Mapping[str, str]) -> None:
        """Note an answer that is an error."""
        self.end, self.status, self.fresh = end_of(status), status, True
        self.retry_after = retry_after(headers)


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
def observed(
    observer: LanguageModelObserver, title: str, patience: float
) -> Iterator[ModelRequest]:
    """Open for one request to the API `title`; `observer` receives it when this is left."""
    margin = min(_MARGIN, (seconds_left() or 0.0) / 10)
    request = ModelRequest(title, time.perf_counter(), patience, margin)
    request.whole = request.left
    try:
        yield request
    except NotCalled as error:
        request.end = request.end or error.end
        raise
    finally:
        took = time.perf_counter() - request.began
        observer.requested(request.end or CANCELLED, took, max(0, request.tries - 1))


@asynccontextmanager
async def limited(request: ModelRequest) -> AsyncIterator[None]:
    """Stop the try when the request has no time left. Raises StepFailed with the last reason."""
    left = request.step_left
    limit = asyncio.timeout(left)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if left is None or not limit.expired():
            raise
        request.end = TIMEOUT
        request.hurried = left < time.perf_counter() - left - request.began
        if request.status:
            raise status_failure(request) from error
        raise _away(f"{request.title} did not answer within {left:.3g} s") from error


@contextmanager
def translated(request: ModelRequest, timeout: float, sdk: SdkErrors) -> Iterator[None]:
    """Raise StepFailed for any error of the SDK, and note how the request ended.

    `timeout` is the SDK's own, in seconds, for each try.
    """
    import httpx2

    title = request.title
    try:
        yield
    except sdk.status as error:
        request.note_status(error.status_code, error.response.headers)
        _log.debug("%s answered %d", title, error.status_code, exc_info=True)
        raise status_failure(request) from error
    # In the middle of a stream the HTTP library's own errors come through the SDK.
    except (sdk.timeout, httpx2.TimeoutException) as error:
        request.end = TIMEOUT
        raise _away(f"{title} did not answer within {timeout:g} s") from error
    except (sdk.connection, httpx2.RequestError) as error:
        request.end = UNREACHABLE
        _log.debug("%s could not be reached", title, exc_info=True)
        raise _away(f"{title} could not be reached") from error
    # The SDK passes on JSONDecodeError of a wrong body, and UnicodeEncodeError of a wrong key; both
    # are ValueErrors.
    except (sdk.any, ValueError) as error:
        if type(error) is sdk.api:  # not one of a body that could not be read
            request.note_status(_OK, {})
            raise status_failure(request) from error
        _log.debug("the SDK of %s failed", title, exc_info=True)
        raise unreadable(request) from error


def unreadable(request: ModelRequest) -> StepFailed:
    """Return the failure of an answer that is no message of the API."""
    request.end = UNREADABLE
    return StepFailed(f"{request.title}'s answer could not be read")


def require_whole(request: ModelRequest, stop_reason: str | None) -> None:
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


def count_of(about: object, name: str) -> int:
    """Return a count that an unchecked body may hold; 0 where it holds none."""
    count = getattr(about, name, None)
    return max(0, count) if isinstance(count, int) and not isinstance(count, bool) else 0


def end_of(status: int) -> str:
    """Name the end of a request with this status, as metrics do."""
    if status in _ENDS:
        return _ENDS[status]
    return REFUSED if _REFUSED <= status < _SERVER_ERROR else SERVER_ERROR


def status_failure(request: ModelRequest) -> StepFailed:
    """Return the failure for the request's last status; it holds no text of the API."""
    status = request.status
    if status < _REFUSED:
        return _away(f"{request.title} broke its answer off")
    meaning = _MEANINGS.get(status)
    reason = f"{request.title} answered {status}" + (f" ({meaning})" if meaning else "")
    if request.waits:
        # Another try of the step would begin before that delay, and be refused.
        return _away(f"{reason}, retry after {request.retry_after:.0f} s", retry=False)
    # Every other 4xx means that the request is wrong: a retry would fail again.
    passing = status >= _SERVER_ERROR or status in _AGAIN
    return _away(reason) if passing else StepFailed(reason, retry=False)


def _away(error: str, *, retry: bool = True) -> StepFailed:
    """Return the failure of a request that the same API may answer later."""
    return StepFailed(error, retry=retry, failure_reason=FailureReason.DEPENDENCY_AWAY)
