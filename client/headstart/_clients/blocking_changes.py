"""Cancels, deletes, prolongs and shares runs: the methods of `BlockingClient` that do so."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from headstart._clients.client import PrecomputeClient
from headstart._messages.results import Cancelled, RunToken, Touched

T = TypeVar("T")


class BlockingChanges:
    """Adds to `BlockingClient` the calls that change a run, or who may read it."""

    if TYPE_CHECKING:

        def _call(self, make: Callable[[PrecomputeClient], Coroutine[Any, Any, T]]) -> T: ...

    def cancel(
        self,
        key: str,
        *,
        revision: int = 0,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Cancelled:
        """Cancel a run as `PrecomputeClient.cancel`."""
        return self._call(
            lambda client: client.cancel(
                key, revision=revision, namespace=namespace, timeout=timeout
            )
        )

    def delete(
        self,
        key: str,
        *,
        revision: int = 0,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> bool:
        """Delete a run as `PrecomputeClient.delete`."""
        return self._call(
            lambda client: client.delete(
                key, revision=revision, namespace=namespace, timeout=timeout
            )
        )

    def touch(
        self,
        key: str,
        *,
        ttl: float | timedelta | None = None,
        revision: int = 0,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Touched:
        """Let a run live longer as `PrecomputeClient.touch`."""
        return self._call(
            lambda client: client.touch(
                key, ttl=ttl, revision=revision, namespace=namespace, timeout=timeout
            )
        )

    def create_run_token(
        self,
        key: str,
        *,
        ttl: float | timedelta | None = None,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> RunToken:
        """Return a token for one run as `PrecomputeClient.create_run_token`."""
        return self._call(
            lambda client: client.create_run_token(
                key, ttl=ttl, namespace=namespace, timeout=timeout
            )
        )
