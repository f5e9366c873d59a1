"""Encode and decode a worker's state."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..domain import DEFAULT_POOL, Spread, WorkerState

log = logging.getLogger(__name__)


def about_of(state: WorkerState) -> str:
    """Return a worker's state as text."""
    return json.dumps(asdict(state), separators=(",", ":"), ensure_ascii=False)


def worker_from(text: bytes) -> WorkerState | None:
    """Return the state that `about_of` wrote; for any other text log it and return None."""
    try:
        found = json.loads(text)
        return WorkerState(
            name=str(found["name"]),
            host=str(found["host"]),
            version=str(found["version"]),
            pipelines=tuple(str(name) for name in found["pipelines"]),
            pools=tuple(str(name) for name in found.get("pools", (DEFAULT_POOL,))),
            slots=int(found["slots"]),
            busy=int(found["busy"]),
            started_us=int(found["started_us"]),
            durations=_durations(found.get("durations", {})),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        log.warning("not a worker of ours: %.200r", text)
        return None


def _durations(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Spread]]:
    """Return the durations by pipeline and step; raises as its caller expects."""
    return {
        pipeline: {step: Spread(*map(int, spread)) for step, spread in steps.items()}
        for pipeline, steps in found.items()
    }
