"""What the state machine's model knows of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from headstart_service.domain import Lease, Outcome, RunKey, Status, StepState
from headstart_service.store.keys import partition_of
from tests.contract.backend import plan

PARTITIONS = 2
SHARE = 3
NAMESPACE_SHARE = 2
LIMITS = {"max_records": SHARE * PARTITIONS, "namespace_max": NAMESPACE_SHARE * PARTITIONS}


def _keys(namespace: str, partition: int, number: int) -> list[RunKey]:
    found = (RunKey(namespace, f"{n}") for n in range(30))
    return [key for key in found if partition_of(key, PARTITIONS) == partition][:number]


KEYS = [*_keys("games", 0, 3), *_keys("quiz", 0, 2), *_keys("games", 1, 1)]
"""Few, so that each lives through much. In one partition there are more than there is room for,
and one namespace there has more than it has places."""

PLANS = {
    name: plan(name, {"a": digests[0], "b": digests[1]})
    for name, digests in {"d0": "11", "d1": "12", "d2": "22"}.items()
}
"""From one to the next, one step's own inputs change."""


TOOK = 1500
"""Seconds that a run is expected to take. Tests are over much sooner, and so is what is needed before."""


class Place(NamedTuple):
    """Where a pending run stands in the queue; the least is claimed first."""

    awaited: int
    """-1 once somebody waits for it."""
    need: int
    """In how many seconds it was needed."""
    since: int
    declared: bool

    @property
    def order(self) -> tuple[int, int, int]:
        return (1 if self.late else self.awaited, self.need, self.since)

    @property
    def band(self) -> int:
        """0 once somebody waits for it, 2 if it is late."""
        return 2 if self.late else 1 + self.awaited

    @property
    def late(self) -> bool:
        """Whether it cannot be ready in time."""
        return self.declared and not self.awaited and self.need < TOOK

    def joined(self, other: Place) -> Place:
        """What it is when somebody else asks for it."""
        if self.awaited:
            return self
        sooner = other if self.late else min(self, other, key=lambda place: place[1:3])
        return sooner._replace(declared=self.declared and other.declared)

    def promoted(self, now: int) -> Place:
        """What it is when somebody waits for it."""
        return self if self.awaited else Place(-1, 0, now, declared=False)


FIRST = Place(0, 0, 0, declared=False)


class Ticket(NamedTuple):
    """What a claimed job is for."""

    key: RunKey
    run: str
    place: Place


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
    place: Place = FIRST
    request: tuple[str, Outcome, int] | None = None
    """The request id of the start that made it, if it had one, and what that start answered."""
    aside: bool = False
    """Whether it is set aside for the one job that was refused its last try."""

    def serves(self, digest: str) -> bool:
        """Whether a start with this digest joins the run or reuses its results."""
        return self.digest == digest and self.status in (
            Status.PENDING,
            Status.IN_PROGRESS,
            Status.COMPLETED,
        )

    def repeats(self, digest: str, request: str) -> bool:
        """Whether a start with this request id repeats the one that made it."""
        return self.digest == digest and self.request is not None and self.request[0] == request

    @property
    def waits(self) -> bool:
        """Whether any job may be for it."""
        return self.status is Status.PENDING and not self.aside

    def has_ended(self, name: str) -> bool:
        """Whether a step has ended; no commit changes it then."""
        return name in self.steps and self.steps[name][0].ended

    def stop_steps(self) -> None:
        self.steps = {n: s for n, s in self.steps.items() if s[0] is not StepState.RUNNING}

    def end(self, status: Status, now: int) -> None:
        self.status = status
        self.ended_at = self.asked_at = now
        self.aside = False
        if status is not Status.COMPLETED:
            self.stop_steps()

    def shows_no_result_of_other_inputs(self) -> None:
        for name, (_, fragment) in self.steps.items():
            assert f"{name}={PLANS[self.digest].steps[name]} ".encode() in fragment

    def holds(self, lease: Lease) -> bool:
        return (
            self.status is Status.IN_PROGRESS
            and self.run == lease.job.run
            and self.attempt == lease.attempt
        )


def check_bounds(runs: Collection[RunKey]) -> None:
    """Neither a partition nor a namespace in it has more than its share."""
    places = Counter(partition_of(key, PARTITIONS) for key in runs)
    assert all(number <= SHARE for number in places.values())
    own = Counter((partition_of(key, PARTITIONS), key.namespace) for key in runs)
    assert all(number <= NAMESPACE_SHARE for number in own.values())


def victims_for(newcomer: RunKey, runs: dict[RunKey, Run]) -> list[RunKey] | None:
    """Who of the runs must go for a newcomer; None when nobody can."""
    partition = partition_of(newcomer, PARTITIONS)
    mine = {key: run for key, run in runs.items() if partition_of(key, PARTITIONS) == partition}
    own = {key: run for key, run in mine.items() if key.namespace == newcomer.namespace}
    if len(own) == NAMESPACE_SHARE:
        return _first_to_go(own)
    return _first_to_go(mine) if len(mine) == SHARE else []


def _first_to_go(mine: dict[RunKey, Run]) -> list[RunKey] | None:
    """The one of these that is evicted first; None when all of them live."""
    read = sorted((run.ended_at, str(key), key) for key, run in mine.items() if run.read)
    ended = [(key, run) for key, run in mine.items() if run.status.ended and not run.read]
    unread = sorted((run.asked_at, str(key), key) for key, run in ended)
    return [key for _, _, key in read + unread][:1] or None
