"""What the live page needs from the rest of an API process; `app` brings them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..domain import Cancelled, Inspection, RunKey, RunSummary, Stats, Status, WorkerState


class Runs(Protocol):
    """The runs that are kept. Every method raises StoreUnavailable when the store is away."""

    async def inspect(self, key: RunKey, *, largest: int = 0) -> Inspection:
        """A run with its results, which does not count as reading them. Raises RunNotFound.

        With `largest`, of no more than so many bytes: the largest steps' are left out.
        """
        ...

    async def cancel(self, key: RunKey, revision: int = 0) -> Cancelled:
        """End a run, if it has this revision; 0 is any. Raises RunNotFound."""
        ...

    async def list(
        self,
        namespace: str,
        statuses: Sequence[Status],
        after: RunKey | None,
        limit: int,
        *,
        quiet: bool = False,
    ) -> Sequence[RunSummary]:
        """Up to `limit` runs behind `after`, by name; no namespace means all.

        When `quiet`, a damaged record is neither counted nor logged.
        """
        ...

    async def stats(self, namespace: str) -> Stats:
        """How much is kept and queued; no namespace means all."""
        ...

    async def workers(self, limit: int) -> Sequence[WorkerState]:
        """What up to `limit` workers have lately said of themselves."""
        ...


class Viewer(Protocol):
    """What a viewer may see and do: the grant of a token."""

    @property
    def name(self) -> str:
        """What the operator calls the token; empty where none is asked for."""
        ...

    @property
    def namespaces(self) -> frozenset[str] | None:
        """The namespaces that it names; None for each of them, one at a time."""
        ...

    @property
    def whole(self) -> bool:
        """Whether all namespaces at once, and the process itself, may be seen."""
        ...

    def reads(self, namespace: str) -> bool:
        """Whether runs of this namespace may be seen."""
        ...

    def writes(self, namespace: str) -> bool:
        """Whether runs of this namespace may be cancelled."""
        ...


Admit = Callable[[str | None], Viewer]
"""Gives who sends this Authorization header, if any. Raises Unauthenticated."""
