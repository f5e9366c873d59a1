"""The port through which the store reports to metrics. Observers return at once."""

from __future__ import annotations

from typing import Final, Protocol

from ..base.metric_labels import Eviction, MemoLookup

TIMEOUT: Final = "timeout"
"""Redis did not answer within its budget."""
LOST: Final = "lost"
"""The connection was lost, or none could be made."""
REFUSED: Final = "refused"
"""Redis answered with an error, as a replica or one that loads its data does."""
FULL: Final = "full"
"""Redis has no memory left."""
SKIPPED: Final = "skipped"
"""Nothing was sent, because earlier calls have found Redis away."""
ERRORS: Final = (TIMEOUT, LOST, REFUSED, FULL, SKIPPED)


class StoreObserver(Protocol):
    """Receives the store's round trips and events."""

    def trip(self, command: str, calls: int, seconds: float) -> None:
        """Count a round trip of this script or command with the replies to `calls` calls."""
        ...

    def failed(self, command: str, calls: int, error: str) -> None:
        """Count `calls` calls that got one of `ERRORS` instead."""
        ...

    def damaged(self) -> None:
        """Count a damaged record or job."""
        ...

    def evicted(self, kind: Eviction, runs: int) -> None:
        """Count runs that are kept no longer, for this reason."""
        ...

    def shed(self, runs: int) -> None:
        """Count queued runs that were ended because they could not be ready when needed."""
        ...

    def given_up(self) -> None:
        """Count a run that failed because its workers were lost too often."""
        ...

    def reclaimed(self, jobs: int) -> None:
        """Count jobs that were taken over from workers whose leases had expired."""
        ...

    def looked(self, result: MemoLookup) -> None:
        """Count a lookup of a memo, with this result."""
        ...


class Unwatched:
    """A StoreObserver that ignores all."""

    def trip(self, command: str, calls: int, seconds: float) -> None:
        """Do nothing."""

    def failed(self, command: str, calls: int, error: str) -> None:
        """Do nothing."""

    def damaged(self) -> None:
        """Do nothing."""

    def evicted(self, kind: Eviction, runs: int) -> None:
        """Do nothing."""

    def shed(self, runs: int) -> None:
        """Do nothing."""

    def given_up(self) -> None:
        """Do nothing."""

    def reclaimed(self, jobs: int) -> None:
        """Do nothing."""

    def looked(self, result: MemoLookup) -> None:
        """Do nothing."""
