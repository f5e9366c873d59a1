"""Sends the requests of steps: so many at once to each host, and again after what may pass.

A request waits for its turn at its host while its step's clock stands still. It is repeated while
the step has time for it, after exponential backoff with full jitter, and after an answer's
`Retry-After` if that is longer. These tries are repeated:

- no connection: nothing was sent, so any request is repeated;
- 429: the host has refused it, so any request is;
- 502, 503, 504, a timeout or a broken connection: those of idempotent methods alone.

A request whose body is a stream is sent once. The last answer or error is the step's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final

import httpx2

from ..worker.step_deadline import seconds_left, step_stopped
from .model_request import retry_after
from .retries import backoff

if TYPE_CHECKING:
    from httpx2 import Request, Response

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_REFUSED: Final = 429
_AWAY: Final = (502, 503, 504)
_PATIENCE: Final = 30.0
"""Seconds in which other tries may begin, outside of a step."""


class PatientClient(httpx2.AsyncClient):
    """An HTTP client that limits the requests to each host, and repeats them."""

    def __init__(self, *, per_host: int, retries: int, wait: float, **options: Any) -> None:
        """Have `per_host` requests at once to a host, and repeat each up to `retries` times.

        A request waits for its turn for `wait` seconds at most; PoolTimeout ends the wait.
        """
        super().__init__(**options)
        self._per_host = per_host
        self._retries = retries
        self._wait = wait
        self._hosts: dict[tuple[str, str, int | None], _Host] = {}

    async def send(self, request: Request, *, stream: bool = False, **options: Any) -> Response:
        """Send a request until it is answered, or may not be repeated."""
        url = request.url
        key = (url.scheme, url.host, url.port)
        host = self._hosts.setdefault(key, _Host(self._per_host))
        host.users += 1
        try:
            return await self._tried(request, host, stream=stream, **options)
        finally:
            host.users -= 1
            if host.idle:  # a crawler meets thousands of hosts
                self._hosts.pop(key, None)

    async def _tried(
        self, request: Request, host: _Host, *, stream: bool, **options: Any
    ) -> Response:
        until = time.monotonic() + _PATIENCE
        tries = 0
        while True:
            tries += 1
            await self._turn(request, host)
            held = False
            try:
                response = await super().send(request, stream=stream, **options)
                pause = max(retry_after(response.headers), backoff(tries))
                again = tries <= self._retries and _is_refusal(request, response)
                if not again or not pause < _left(until):  # a pause may be nan
                    if stream:
                        held = True
                        response.stream = _HeldStream(response.stream, host.leave)
                    return response
                await response.aclose()
            except httpx2.TransportError as error:
                pause = backoff(tries)
                if tries > self._retries or not _may_pass(request, error) or pause >= _left(until):
                    raise
            finally:
                if not held:
                    host.leave()
            await asyncio.sleep(pause)

    async def _turn(self, request: Request, host: _Host) -> None:
        """Wait for the request's turn, while its step's clock stands still."""
        if host.is_free:
            await host.enter()
            return
        try:
            with step_stopped():
                async with asyncio.timeout(self._wait):
                    await host.enter()
        except TimeoutError as error:
            raise httpx2.PoolTimeout(
                f"waited {self._wait:g} s for one of {self._per_host} requests at once to "
                f"{request.url.host}",
                request=request,
            ) from error


class _Host:
    """One host's requests under way."""

    def __init__(self, limit: int) -> None:
        self._turns = asyncio.Semaphore(limit)
        self._under_way = 0
        self.users = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is under way or waits."""
        return not self.users and not self._under_way

    @property
    def is_free(self) -> bool:
        """Whether a request may begin at once."""
        return not self._turns.locked()

    async def enter(self) -> None:
        """Take a turn, in the order of the calls; without a wait while `is_free`."""
        await self._turns.acquire()
        self._under_way += 1

    def leave(self) -> None:
        """Give the turn back."""
        self._under_way -= 1
        self._turns.release()


class _HeldStream(httpx2.AsyncByteStream):
    """An answer's body, which keeps its request's turn until it is closed."""

    def __init__(self, stream: Any, leave: Callable[[], None]) -> None:
        self._stream = stream
        self._leave: Callable[[], None] | None = leave

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            yield piece

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            leave, self._leave = self._leave, None
            if leave is not None:
                leave()


def _left(until: float) -> float:
    left = seconds_left()
    return until - time.monotonic() if left is None else left


def _is_refusal(request: Request, response: Response) -> bool:
    """Whether the same request may be answered otherwise later."""
    if response.status_code == _REFUSED:
        return _replayable(request)
    return response.status_code in _AWAY and _idempotent(request)


def _may_pass(request: Request, error: httpx2.TransportError) -> bool:
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return _replayable(request)
    passing = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)
    # A wait for a free connection that was in vain has lasted long enough.
    if isinstance(error, httpx2.PoolTimeout) or not isinstance(error, passing):
        return False
    return _idempotent(request)


def _idempotent(request: Request) -> bool:
    return request.method in _IDEMPOTENT and _replayable(request)


def _replayable(request: Request) -> bool:
    return isinstance(request.stream, httpx2.ByteStream)
