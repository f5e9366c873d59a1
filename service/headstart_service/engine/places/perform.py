"""Calls a step's function in a process that is not the worker's. Imports nothing of the worker."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import StepFailed
from .rules import find


class StepRaised(Exception):
    """A step raised elsewhere, where its exception stays; this holds the traceback's text."""


@dataclass(frozen=True, slots=True)
class Performed:
    """How a call ended."""

    value: Any = None
    failure: str | None = None
    """What callers may read, if the step failed on purpose."""
    retry: bool = True
    trace: str | None = None
    """The traceback, if it raised something else."""
    cpu_seconds: float = 0.0

    def result(self) -> Any:
        """The value; raises StepFailed or StepRaised when there is none."""
        if self.failure is not None:
            raise StepFailed(self.failure, retry=self.retry)
        if self.trace is not None:
            raise StepRaised(self.trace)
        return self.value


def perform(module: str, name: str, arguments: Mapping[str, Any]) -> Performed:
    """Call the function; never raises what it raises, which the worker might not know."""
    began = time.process_time()
    value, failure, retry, trace = None, None, True, None
    try:
        value = find(module, name)(**arguments)
    except StepFailed as failed:
        failure, retry = str(failed), failed.retry
    except Exception:  # noqa: BLE001  # told by its text
        trace = traceback.format_exc()
    spent = time.process_time() - began
    return Performed(value, failure, retry, trace, spent)
