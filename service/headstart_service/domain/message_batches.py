"""Requests of a language model that were handed in as a batch, which outlive their workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BatchOwner:
    """One claim of a run, whose step waits for a request. A later claim takes the request over."""

    run: str = ""
    """The id of the run; empty for none."""
    attempt: int = 0


FREE = BatchOwner()
"""The owner of a request that no step waits for."""


@dataclass(frozen=True, slots=True)
class BatchedRequest:
    """One request. `digest` is that of all that it asks, and of the run that asks."""

    digest: str
    id: str
    """Unique: the request's name in its batch."""
    batch: str = ""
    """The API's name of the batch; empty until it is handed in."""


class MessageBatches(Protocol):
    """Keeps requests for all workers. All methods may raise StoreUnavailable."""

    async def take(
        self, new: BatchedRequest, owner: BatchOwner, *, create: bool
    ) -> BatchedRequest | None:
        """Return a request of this digest that was handed in and lost its owner; it is `owner`'s.

        Without one, note `new` as about to be handed in, and return it; None unless `create`.
        A later claim of its run takes it from its owner, and so does another run of the same key.
        """
        ...

    async def keep(self, request: BatchedRequest, owner: BatchOwner, *, then: BatchOwner) -> bool:
        """Note the batch of a request, and that `then` owns it.

        Returns False, and changes nothing, if it is not `owner`'s any more.
        """
        ...

    async def forget(self, request: BatchedRequest, owner: BatchOwner) -> bool:
        """Forget a request; return False, and change nothing, if it is not `owner`'s."""
        ...
