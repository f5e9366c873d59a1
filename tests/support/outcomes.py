"""An observer that keeps how each step ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headstart_service.domain import Claim
from headstart_service.worker.worker_observer import StepOutcome, WorkObservers


class Outcomes(WorkObservers):
    """Keeps how each step ended."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[str, StepOutcome] = {}

    @contextmanager
    def step(self, claim: Claim, name: str, outcome: StepOutcome) -> Iterator[None]:
        yield
        self.steps[name] = outcome
