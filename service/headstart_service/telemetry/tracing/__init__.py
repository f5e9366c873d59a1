"""OpenTelemetry tracing: what `HEADSTART_TRACING` turns on. Off, OpenTelemetry is not imported."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

from ...base.extras import install
from ...domain.errors import PackageMissing

if TYPE_CHECKING:
    from .tracing import Tracing


def tracing(role: str, *, on: bool) -> AbstractAsyncContextManager[Tracing | None]:
    """Tracing while the context is open, of the service `headstart-<role>`; None when it is off.

    Raises StartupError when it is on and OpenTelemetry is not installed or its settings are wrong.
    """
    if not on:
        return nullcontext()
    try:
        from .tracing import opened
    except ImportError as error:
        raise PackageMissing(
            f"HEADSTART_TRACING: needs {error.name}, which is not installed: {install('tracing')}"
        ) from None
    return opened(role)
