"""A viewer of the live page: its grant, and the check that gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Viewer(Protocol):
    """What a viewer may see and do: the grant of a token."""

    @property
    def name(self) -> str:
        """The token's name; empty where no token is required."""
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
"""Returns the viewer that sends this Authorization header, if any. Raises Unauthenticated."""
