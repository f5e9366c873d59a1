"""An observer that keeps how each run and step ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headstart_service.domain import Claim
from headstart_service.worker.worker_observer import RunOutcome, StepOutcome, WorkObservers


class Outcomes(WorkObservers):
    """Keeps how each step ended by its name, and each run by its key."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[str, StepOutcome] = {}
        self.runs: dict[str, RunOutcome] = {}

    @contextmanager
    def run(self, claim: Claim, outcome: RunOutcome) -> Iterator[None]:
        try:
            yield
        finally:
            self.runs[claim.lease.job.key.key] = outcome

    @contextmanager
    def step(self, claim: Claim, name: str, outcome: StepOutcome) -> Iterator[None]:
        yield
        self.steps[name] = outcome
