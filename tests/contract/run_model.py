"""What the state machine's model knows of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from headstart_service.domain import Lease, Status, StepState
from tests.contract.backend import plan

PLANS = {
    name: plan(name, {"a": digests[0], "b": digests[1]})
    for name, digests in {"d0": "11", "d1": "12", "d2": "22"}.items()
}
"""From one to the next, one step's own inputs change."""


@dataclass
class Run:
    """What the model knows of one record."""

    digest: str
    revision: int
    run: str
    status: Status = Status.PENDING
    attempt: int = 0
    tries: int = 0
    entry: str = ""
    """The entry of its claimed job."""
    steps: dict[str, tuple[StepState, bytes]] = field(default_factory=dict)
    ended_at: int = 0
    asked_at: int = 0
    """When it ended or was reused."""
    read: bool = False

    def stop_steps(self) -> None:
        self.steps = {n: s for n, s in self.steps.items() if s[0] is not StepState.RUNNING}

    def end(self, status: Status, now: int) -> None:
        self.status = status
        self.ended_at = self.asked_at = now
        if status is not Status.COMPLETED:
            self.stop_steps()

    def holds(self, lease: Lease) -> bool:
        return (
            self.status is Status.IN_PROGRESS
            and self.run == lease.job.run
            and self.attempt == lease.attempt
        )
