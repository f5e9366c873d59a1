"""What the log line of a write has: every write has one, with its token's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..domain import RunKey
from ..domain.log_fields import fields
from .dependencies import Call

UNCHANGED: Final = "unchanged"
"""The outcome of a write that found nothing to change."""


def of_write(
    call: Call,
    method: str,
    outcome: str,
    key: RunKey | None = None,
    *,
    of: str = "run",
    **more: Any,
) -> Mapping[str, Any]:
    """Return what `extra` takes: the token's name, the method and the outcome.

    The event is the outcome `of` a run, or of something else.
    """
    if call.grant is not None:
        more["token"] = call.grant.name
    return fields(f"{of}.{outcome}", key, method=method, outcome=outcome, **more)
