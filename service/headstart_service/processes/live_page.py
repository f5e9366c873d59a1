"""Composes the live page, with the API's own rules of who may see and do what."""

from __future__ import annotations

import importlib.metadata
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from ..api.refusals import Refusals
from ..api.results.subscription import Subscribe, Subscription
from ..auth.grants import EVERYTHING, Grant
from ..auth.server_certificate import ServerCertificate
from ..auth.token_file import TokenFile
from ..config.settings import Settings
from ..dashboard.access import Door
from ..dashboard.problems import ReadFacts
from ..dashboard.routes import Dashboard, Rules
from ..domain import RunKey
from ..domain.causes import Facts
from ..http.readiness import Readiness
from ..pipeline.registry import Registry
from ..store.redis_store import RedisStore
from .exposure import http_is_open
from .http_refusals import noted

_DAY = 86400


def live_page(
    settings: Settings,
    store: RedisStore,
    known: Registry,
    tokens: TokenFile | None,
    outdate: Callable[[RunKey], None],
    subscribe: Subscribe,
    facts: ReadFacts,
    refusals: Refusals,
) -> Dashboard | None:
    """Build the page of an API process, or return None where it has none.

    A run that is cancelled on the page is passed to `outdate` before the viewer gets the answer.
    While a viewer is there, the page receives what `subscribe` yields. `facts` returns what the
    process knows of its own problems.
    """
    if not settings.dashboard:
        return None

    def admit(authorization: str | None) -> Grant:
        return EVERYTHING if tokens is None else tokens.grants.admit(authorization)

    door = Door(
        host=settings.host,
        tokens=tokens is not None,
        open=http_is_open(settings, tls=settings.http_tls),
    )
    about = {
        "host": socket.gethostname(),
        "version": importlib.metadata.version("headstart"),
        "started_us": time.time_ns() // 1000,
        "max_cached": settings.max_cached_results,
    }

    def subscribed(page: Dashboard) -> Coroutine[Any, Any, None]:
        return Subscription(
            subscribe, opened=page.opened, closed=page.closed, receive=page.receive
        ).run()

    refused = noted(refusals, tokens.grants if tokens else None)
    rules = Rules(door=door, about=about, facts=facts)
    return Dashboard(store, known, admit, rules, outdate, subscribed, refused)


def own_facts(settings: Settings, state: Readiness, tls: ServerCertificate | None) -> Facts:
    """Return what this process knows of its own problems."""
    return Facts(
        store_problem=state.reason,
        certificate_left=None if tls is None else (tls.expires - time.time()) / _DAY,
        room=settings.max_cached_results,
    )
