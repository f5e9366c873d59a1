"""Calls a step's function in a process that is not the worker's. Imports nothing of the worker."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import StepFailed
from ..reasons import failure_of, readable
from .rules import find


class StepRaised(Exception):
    """Stands for what a step raised, when that cannot be raised here.

    It was raised in another process, where it stays: this holds the traceback's text. Or it is no
    Exception, and would end the event loop: it is the cause of this one.
    """

    @classmethod
    def by(cls, error: BaseException) -> StepRaised:
        """Return one for something that is no Exception, such as what sys.exit() raises."""
        raised = cls(f"{type(error).__name__}: {error}")
        raised.__cause__ = error
        return raised


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
    except BaseException as error:  # noqa: BLE001  # told by its text
        failed = failure_of(error)
        if failed is not None:
            failure, retry = readable(failed), failed.retry
        else:
            trace = traceback.format_exc()
    spent = time.process_time() - began
    return Performed(value, failure, retry, trace, spent)
