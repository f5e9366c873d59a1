"""What a worker says of itself, as text, and back."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..domain import Spread, WorkerState

log = logging.getLogger(__name__)


def about_of(state: WorkerState) -> str:
    """One worker as the roster keeps it."""
    return json.dumps(asdict(state), separators=(",", ":"), ensure_ascii=False)


def worker_from(text: bytes) -> WorkerState | None:
    """The worker that `about_of` wrote; None, and a line in the log, for anything else."""
    try:
        told = json.loads(text)
        return WorkerState(
            name=str(told["name"]),
            host=str(told["host"]),
            version=str(told["version"]),
            pipelines=tuple(str(name) for name in told["pipelines"]),
            slots=int(told["slots"]),
            busy=int(told["busy"]),
            started_us=int(told["started_us"]),
            durations=_durations(told.get("durations", {})),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        log.warning("not a worker of ours: %.200r", text)
        return None


def _durations(told: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Spread]]:
    """A worker of an older version tells none. Raises as its caller expects."""
    return {
        pipeline: {step: Spread(*map(int, spread)) for step, spread in steps.items()}
        for pipeline, steps in told.items()
    }
