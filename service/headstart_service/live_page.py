"""Composes the live page, with the API's own rules of who may see and do what."""

from __future__ import annotations

import importlib.metadata
import socket
import time

from .api.access import EVERYTHING, Grant
from .api.token_file import TokenFile
from .engine.registry import Registry
from .listening import is_loopback
from .settings import Settings
from .store.redis_store import RedisStore
from .web.dashboard import Dashboard, Rules
from .web.guard import Door


def live_page(
    settings: Settings,
    store: RedisStore,
    known: Registry,
    tokens: TokenFile | None,
) -> Dashboard | None:
    """The page of an API process; None when it shall have none."""
    if not settings.dashboard:
        return None

    def admit(authorization: str | None) -> Grant:
        return EVERYTHING if tokens is None else tokens.access.admit(authorization)

    door = Door(
        host=settings.host,
        tokens=tokens is not None,
        open=settings.insecure or is_loopback(settings.host),
    )
    about = {
        "host": socket.gethostname(),
        "version": importlib.metadata.version("headstart"),
        "started_us": time.time_ns() // 1000,
        "max_cached": settings.max_cached_results,
    }
    return Dashboard(store, known, admit, Rules(door=door, about=about))
