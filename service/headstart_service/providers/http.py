"""The HTTP client that steps get as `http`: httpx2, which the Anthropic SDK brings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from httpx2 import AsyncClient

_CONNECTIONS: Final = 100
"""At once, of all runs of a worker; a request beyond them waits for one, `_WAIT` at most."""
_KEPT: Final = 20
"""Idle connections that are kept open."""
_TIMEOUT: Final = 10.0
"""Seconds for connecting, and between two pieces of an answer; a step's own timeout is above."""
_WAIT: Final = 5.0


@asynccontextmanager
async def http_client(
    *, per_host: int = 20, retries: int = 2, wait: float = 300.0
) -> AsyncIterator[AsyncClient]:
    """A client with bounded connections and timeouts, closed with the context.

    It follows no redirects and keeps no cookies. It has `per_host` requests to a host under way at
    once, and repeats one up to `retries` times: see `patient_http`. A request waits for its turn
    at a host for `wait` seconds at most.
    """
    import httpx2

    from .patient_http import PatientClient  # needs httpx2 too

    async with PatientClient(
        per_host=per_host,
        retries=retries,
        wait=wait,
        limits=httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_KEPT),
        timeout=httpx2.Timeout(_TIMEOUT, pool=_WAIT),
        # A cookie that one user's run received must not be sent with another user's run.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    ) as client:
        yield client
