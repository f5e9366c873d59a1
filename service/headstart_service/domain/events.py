"""What is announced about runs, and what workers make of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from .partials import PartialPiece
from .runs import RunKey, Snapshot


class EventKind(StrEnum):
    """What happened to a run."""

    STARTED = "started"
    CLAIMED = "claimed"
    STEP = "step"
    """Steps ended."""
    PARTIAL = "partial"
    """A step that streams has given something. Only processes that follow it receive that."""
    REPORTED = "reported"
    """A caller reported the results of steps."""
    AWAITED = "awaited"
    """A caller waits for steps. Only the run's worker receives it."""
    RELEASED = "released"
    UNSERVED = "unserved"
    """A worker set the run aside, because it does not offer what the run needs."""
    ENDED = "ended"
    CANCELLED = "cancelled"
    DROPPED = "dropped"
    """The store removed the run to make room."""
    RESET = "reset"
    """The store was emptied. This concerns every run; the announcement names none."""

    @property
    def ends_run(self) -> bool:
        """Whether the run computes nothing more."""
        return self in (EventKind.ENDED, EventKind.CANCELLED)

    @property
    def outdates_results(self) -> bool:
        """Whether results that were read before it are of no more use."""
        return self in (EventKind.STARTED, EventKind.CANCELLED, EventKind.DROPPED)

    @property
    def ends_steps(self) -> bool:
        """Whether the event names steps that have a result now."""
        return self in (EventKind.STEP, EventKind.REPORTED)


class Awaits(IntEnum):
    """What the callers of a process wait for: it receives announcements of this and less."""

    NOTHING = 0
    END = 1
    """The run's end, and whatever outdates its results."""
    STEPS = 2
    """Also the end of each step."""
    CHANGES = 3
    """Everything that happens to the run, except what its steps give before they end."""
    PARTIALS = 4
    """That too."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """Something that happened to a run: what waiters wake up for and caches drop."""

    kind: EventKind
    key: RunKey
    run: str
    """The run's id; empty with DROPPED when it is not known."""
    steps: tuple[str, ...] = ()
    """With STEP and REPORTED: the steps that ended; with UNSERVED: the run's class."""
    replaced: str = ""
    """With STARTED: the id of the key's run before it; empty if there was none."""
    result: Snapshot | None = None
    """With ENDED and CANCELLED, if callers of this process wait for the run: the run as it ended.
    This counts as a read. None for a large run."""
    piece: PartialPiece | None = None
    """With PARTIAL: what the step has given."""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """The run with this id is not wanted any more."""

    key: RunKey
    run: str
    replaced: bool = False
    """Whether another run of the key has replaced it, which may need the same steps."""


@dataclass(frozen=True, slots=True)
class Unserved:
    """A worker has left a run of this class for workers that offer it."""

    partition: int
    runs_class: str


@dataclass(frozen=True, slots=True)
class Awaited:
    """Callers wait for these steps of a run: they need not settle."""

    key: RunKey
    run: str
    """The run's id."""
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reported:
    """Callers have handed in results of these steps of a run: no worker need compute them now."""

    key: RunKey
    run: str
    """The run's id."""
    steps: tuple[str, ...]
