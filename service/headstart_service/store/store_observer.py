"""What the store tells those who watch it: metrics. They change nothing and return at once."""

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
"""Nothing was sent, because others have found out that Redis is away."""
ERRORS: Final = (TIMEOUT, LOST, REFUSED, FULL, SKIPPED)


class StoreObserver(Protocol):
    """Watches round trips, and what their replies tell."""

    def trip(self, command: str, calls: int, seconds: float) -> None:
        """A round trip of this script, or command, brought back the replies to so many calls."""
        ...

    def failed(self, command: str, calls: int, error: str) -> None:
        """So many calls got one of `ERRORS` instead."""
        ...

    def damaged(self) -> None:
        """A record, or a job, was not as it was written."""
        ...

    def evicted(self, kind: Eviction, runs: int) -> None:
        """So many runs are kept no longer, for this reason."""
        ...

    def shed(self, runs: int) -> None:
        """So many queued runs were ended, because they could not be ready when needed."""
        ...

    def given_up(self) -> None:
        """A run has failed because its workers were lost too often."""
        ...

    def reclaimed(self, jobs: int) -> None:
        """So many jobs were taken over from workers that had let their leases run out."""
        ...

    def looked(self, result: MemoLookup) -> None:
        """A memo was looked up, with this result."""
        ...


class Unwatched:
    """A StoreObserver for nobody."""

    def trip(self, command: str, calls: int, seconds: float) -> None:
        """Nothing."""

    def failed(self, command: str, calls: int, error: str) -> None:
        """Nothing."""

    def damaged(self) -> None:
        """Nothing."""

    def evicted(self, kind: Eviction, runs: int) -> None:
        """Nothing."""

    def shed(self, runs: int) -> None:
        """Nothing."""

    def given_up(self) -> None:
        """Nothing."""

    def reclaimed(self, jobs: int) -> None:
        """Nothing."""

    def looked(self, result: MemoLookup) -> None:
        """Nothing."""
