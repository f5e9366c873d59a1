"""What a process reports of itself on its HTTP port."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Final

from .report import Check, fail, ok, warn

_NAME: Final = "readiness"
_LONGEST: Final = 2000


def check_readiness(http_address: str, timeout: float) -> Iterator[Check]:
    """What `GET /readyz` answers there; nothing where no process of Headstart answers."""
    connection = http.client.HTTPConnection(http_address, timeout=timeout)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        line = answer.read(_LONGEST).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException, ValueError):
        return
    finally:
        connection.close()
    if answer.status == http.HTTPStatus.OK and line == "ready":
        yield ok(_NAME, line)
    elif answer.status == http.HTTPStatus.OK and line.startswith("ready, but "):
        yield warn(_NAME, line, "the reason names the cure; docs/operations.md has more")
    elif line.startswith("not ready"):
        yield fail(_NAME, line, "the reason names the cure; its log has more")
