"""Cancels, deletes, prolongs and shares runs: the methods of `PrecomputeClient` that do so."""

# ruff: noqa: ASYNC109  (a timeout here becomes gRPC's deadline, which the server sees too)

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message

from headstart._messages import convert, requests
from headstart._messages.results import Cancelled, RunToken, Touched
from headstart._transport.connection import Method

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response")


class Changes:
    """Adds to `PrecomputeClient` the calls that change a run, or who may read it."""

    if TYPE_CHECKING:

        def _in(self, namespace: str | None) -> str: ...
        def _call(
            self,
            method: Method[Request, Response],
            request: Request,
            timeout: float | timedelta | None,
        ) -> Coroutine[Any, Any, Response]: ...

    async def cancel(
        self,
        key: str,
        *,
        revision: int = 0,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Cancelled:
        """Cancel a run that has not ended; finished steps stay readable for a minute.

        Args:
            key: As it was started.
            revision: Cancel no other revision than this, so that a late cancel spares a run that
                was started after it; `Started.revision` has it. Default: any. If the key has
                another one, `cancelled` of the answer is False, and `revision` is the present one.
            namespace: Instead of the client's.
            timeout: Seconds to wait for the answer.

        Raises:
            NotFound: Nothing is kept under this key.
        """
        request = requests.cancel(self._in(namespace), key, revision=revision)
        return convert.cancelled_from(
            await self._call(lambda stub: stub.CancelPrecompute, request, timeout)
        )

    async def delete(
        self,
        key: str,
        *,
        revision: int = 0,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> bool:
        """Delete a run and its results at once; return whether there was one.

        A run that has not ended is cancelled. Repeating it does no harm.

        Args:
            key: As it was started.
            revision: Delete no other revision than this; `Started.revision` has it. Default: any.
            namespace: Instead of the client's.
            timeout: Seconds to wait for the answer.
        """
        request = requests.delete(self._in(namespace), key, revision=revision)
        answer = await self._call(lambda stub: stub.DeletePrecompute, request, timeout)
        return answer.deleted

    async def touch(
        self,
        key: str,
        *,
        ttl: float | timedelta | None = None,
        revision: int = 0,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Touched:
        """Let a run's results live longer, without computing or reading anything.

        Args:
            key: As it was started.
            ttl: How long they live at least, up to 7 days: of a run that has ended from now on, of
                any other from its end on. Default: the server's, 30 minutes.
            revision: Touch no other revision than this; `Started.revision` has it. Default: any.
            namespace: Instead of the client's.
            timeout: Seconds to wait for the answer.

        Raises:
            NotFound: Nothing is kept under this key, or not in this revision.
        """
        request = requests.touch(self._in(namespace), key, ttl=ttl, revision=revision)
        return convert.touched_from(
            await self._call(lambda stub: stub.TouchPrecompute, request, timeout)
        )

    async def create_run_token(
        self,
        key: str,
        *,
        ttl: float | timedelta | None = None,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> RunToken:
        """Return a token that allows its bearer, such as a browser, to read this run alone.

        Args:
            key: As it was started.
            ttl: How long the token is valid: 1 second to 1 day. Default: 1 hour.
            namespace: Instead of the client's.
            timeout: Seconds to wait for the answer.

        Raises:
            ServiceError: The server asks for no tokens, or has no key to sign with.
        """
        request = requests.create_run_token(self._in(namespace), key, ttl=ttl)
        answer = await self._call(lambda stub: stub.CreateRunToken, request, timeout)
        return RunToken(token=answer.token, expires_at=answer.expires_at.ToDatetime(UTC))
