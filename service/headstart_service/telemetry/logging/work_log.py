"""The log of a worker's runs: one line for each thing that happens to one, with its fields."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ...domain import Claim
from ...domain.log_fields import fields, inside, of_claim
from ...worker.worker_observer import (
    UNWANTED,
    RunEnd,
    RunOutcome,
    StepEnd,
    StepOutcome,
)

log = logging.getLogger(__name__)

_ENDS: Final = {
    RunEnd.COMPLETED: (logging.INFO, "completed"),
    RunEnd.FAILED: (logging.WARNING, "failed"),
    RunEnd.HANDED_ON: (logging.INFO, "handed on"),
    RunEnd.STOPPED: (logging.INFO, "stopped"),
}
"""How loud each end of a run is, and what a person reads of it."""


class WorkLog:
    """An observer that writes a line when a run is claimed, when it ends and when a step ends.

    Satisfies `worker.worker_observer.WorkObserver`. Lines that are written meanwhile have the
    run's and the step's fields.
    """

    def __init__(self, worker: str, *, inputs: bool = False) -> None:
        """Write for the worker of this name; with `inputs` also what its runs are about."""
        self._worker = worker
        self._inputs = inputs

    @contextmanager
    def run(self, claim: Claim, outcome: RunOutcome) -> Iterator[None]:
        """Log a run's claim and its end."""
        name = f"{claim.lease.job.key} revision {claim.revision} attempt {claim.lease.attempt}"
        with inside(of_claim(claim, self._worker)):
            more: dict[str, Any] = {}
            if self._inputs:
                more["inputs"] = claim.inputs.decode(errors="replace")
            log.info("%s claimed", name, extra=fields("run.claimed", **more))
            began = time.monotonic()
            try:
                yield
            finally:
                level, verb = _ENDS[outcome.state]
                if outcome.state is RunEnd.STOPPED and outcome.error != UNWANTED:
                    level = logging.WARNING
                attributes = _attributes(outcome, began)
                why = f": {outcome.error}" if outcome.error else ""
                extra = fields(f"run.{outcome.state}", **attributes)
                log.log(level, "%s %s%s", name, verb, why, extra=extra)

    @contextmanager
    def step(self, claim: Claim, name: str, outcome: StepOutcome) -> Iterator[None]:
        """Log a step's end, unless it was stopped with its run."""
        with inside({"step": name}):
            began = time.monotonic()
            try:
                yield
            finally:
                if outcome.state is not StepEnd.STOPPED:
                    self._log_end(claim, name, outcome, began)

    def _log_end(self, claim: Claim, name: str, outcome: StepOutcome, began: float) -> None:
        if not outcome.error and not log.isEnabledFor(logging.DEBUG):
            return
        key = claim.lease.job.key
        attributes = _attributes(outcome, began) | {"attempts": outcome.attempts}
        extra = fields(f"step.{outcome.state}", **attributes)
        if outcome.error:
            how = _tries(outcome)
            log.warning("%s %s failed %s: %s", key, name, how, outcome.error, extra=extra)
        else:
            log.debug("%s %s %s", key, name, outcome.state, extra=extra)


def _tries(outcome: StepOutcome) -> str:
    """Return after how many tries a step has failed: none if it took over what is remembered."""
    match outcome.attempts:
        case 0:
            return "without a try, by a memo" if outcome.memoised else "without a try"
        case 1:
            return "after 1 try"
        case tries:
            return f"after {tries} tries"


def _attributes(outcome: RunOutcome | StepOutcome, began: float) -> dict[str, Any]:
    attributes: dict[str, Any] = {"duration_ms": round((time.monotonic() - began) * 1000, 3)}
    return attributes | {"error": outcome.error} if outcome.error else attributes
