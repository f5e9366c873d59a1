"""A WSGI application that uses a client while gunicorn preloads it, and in each worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.support.forking.calls import meet, use_all

use_all()


def app(_: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the process's id and what came of its calls."""
    pid = meet(Path(os.environ["MEETING"]))
    body = f"{pid} {use_all()}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
