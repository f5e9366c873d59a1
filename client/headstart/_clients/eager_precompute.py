"""`EagerPrecompute`: the service behind the interface of an in-process singleton.

Its promise is that it never harms its caller. Whatever goes wrong (the service is away, hangs, or
fails) comes back as None, soon. The caller then computes live as if there were no head start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import Enum
from functools import partial
from math import isnan
from typing import Any, ClassVar, Final, TypeAlias, TypeVar
from uuid import UUID

import grpc

from headstart._clients.client import PrecomputeClient
from headstart._clients.loop_clients import LoopClient, LoopClients
from headstart._clients.precompute_result import PrecomputeResult, result_from
from headstart._errors import HeadstartError, InvalidRequest, NotFound, ServiceUnavailable
from headstart._get_or_compute.outage_log import OutageLog
from headstart._messages import arguments, convert, requests
from headstart._messages.results import PrecomputeStatus, RecipientType
from headstart._transport.blocking_connection import BlockingConnection
from headstart._transport.endpoint import Endpoint, endpoint
from headstart._transport.forks import ForkLock
from headstart._transport.security import Tls
from headstart.v1 import precompute_pb2 as pb
from headstart.v1.precompute_pb2_grpc import PrecomputeServiceStub

logger = logging.getLogger("headstart")

GameId: TypeAlias = str | int | UUID
Request = TypeVar("Request")
Response = TypeVar("Response")

# All in seconds. How long a connection may take to a host that does not accept it.
_CONNECT_LIMIT: Final = 0.3
# How long an answer may take, with the connection, and without the caller's own timeout.
_ANSWER_LIMIT: Final = 0.5
# The same for a call that blocks the caller's event loop.
_BLOCKING_LIMIT: Final = 0.4
# The same for a start, longer because a lost one costs the user the whole head start.
_START_LIMIT: Final = 1.0
# What a call gets at least if the connection took all of it.
_LEAST: Final = 0.001
# The longest wait that the service accepts.
_LONGEST_WAIT: Final = 600.0


class EagerPrecompute:
    """Starts a bridging game's expensive work early and fetches it when the user submits.

    No method raises, and none takes long: 0.5 s (a start 1 s) beyond the caller's own timeout.
    It takes 0.3 s when the host does not answer, and a few milliseconds when nothing listens at
    the address.
    The logger `headstart` has one WARNING when the service goes away, and one INFO when it is
    back. Wrong arguments, and those that the service refuses, are a caller's mistake: each is a
    WARNING that names the argument and what it may be. So are settings in the environment that
    cannot be right.

    A game's id is text, an int or a UUID; 7 and "7" are the same game.

    All methods may be called from any thread and any event loop, and behind a fork in both
    processes. Where gRPC cannot run (under gevent, for example) they return None, at once.
    """

    _instance: ClassVar[EagerPrecompute | None] = None
    _instance_lock: ClassVar[ForkLock] = ForkLock()

    def __init__(
        self,
        address: str | None = None,
        *,
        namespace: str = "",
        tls: Tls | None = None,
        channel_credentials: grpc.ChannelCredentials | None = None,
        token: str | Callable[[], str] | None = None,
    ) -> None:
        """Make an instance of one's own; most callers want `get_instance()`.

        The arguments are those of `PrecomputeClient`. Nothing is opened yet.

        Raises:
            ValueError: An argument out of range, or an address that names no server. Without
                arguments nothing is raised: see the class.
            TypeError: An argument of a wrong type.
        """
        self._namespace = requests.text("namespace", namespace)
        self._mistake: ValueError | None = None
        try:
            self._endpoint = endpoint(
                address,
                tls=tls,
                channel_credentials=channel_credentials,
                token=token,
            )
        except ValueError as exc:
            if any(each is not None for each in (address, tls, channel_credentials, token)):
                raise
            # The mistake is in the environment, and appears while a request is served, which must
            # go on.
            self._mistake, self._endpoint = exc, Endpoint("")
        new_client = partial(
            LoopClient,
            self._endpoint.address,
            namespace=namespace,
            max_attempts=1,  # during a retry the caller would wait for a service that is away
            tls=self._endpoint.tls,
            channel_credentials=channel_credentials,
            token=self._endpoint.token,
        )
        self._outage = OutageLog()
        self._clients = LoopClients(new_client)
        self._blocking = BlockingConnection(self._endpoint)

    @classmethod
    def get_instance(cls) -> EagerPrecompute:
        """Return the process's instance, with the address and settings of the environment.

        `HEADSTART_ADDRESS`, and for TLS and tokens the variables that `PrecomputeClient` names.
        """
        with cls._instance_lock:
            if cls._instance is None:
                cls._instance = cls()
            return cls._instance

    @classmethod
    def configure(
        cls,
        address: str | None = None,
        *,
        namespace: str = "",
        tls: Tls | None = None,
        channel_credentials: grpc.ChannelCredentials | None = None,
        token: str | Callable[[], str] | None = None,
    ) -> EagerPrecompute:
        """Replace the process's instance by one with these settings, for TLS or a token."""
        instance = cls(
            address,
            namespace=namespace,
            tls=tls,
            channel_credentials=channel_credentials,
            token=token,
        )
        cls._replace(instance)
        return instance

    @classmethod
    def reset_instance(cls) -> None:
        """Close the process's instance; the next `get_instance()` makes a new one."""
        cls._replace(None)

    async def start_bridging_precompute(
        self,
        game_id: GameId,
        anchor: str,
        target: str,
        recipient_type: RecipientType | str | Enum,
        supabase: object = None,
    ) -> PrecomputeStatus | None:
        """Start computing what a game will need, or join what is there already.

        Args:
            game_id: Text of 1 to 256 bytes, an int or a UUID.
            anchor: A word of 1 to 64 characters.
            target: Another word.
            recipient_type: The player that answers: "human" or "haiku", or an enumeration's member
                of that value.
            supabase: Ignored; accepted because callers pass it.

        Returns:
            Where the run stands now, COMPLETED if the same was computed before; None if nothing
            could be started.
        """
        del supabase
        with self._harmless("start_bridging_precompute"):
            key = _key(game_id)
            client, remaining = await self._connected(_START_LIMIT)
            started = await client.start_bridging(
                key, anchor, target, recipient_type, timeout=remaining
            )
            return started.status
        return None

    async def get_precomputed_results(
        self, game_id: GameId, timeout_seconds: float | timedelta | None = 5.0
    ) -> PrecomputeResult | None:
        """Return whatever exists of a game's results, at once if the run has ended.

        Args:
            game_id: As it was started.
            timeout_seconds: How long to wait for results that are still being computed: seconds or
                a timedelta, 0 for not at all, None for as long as it takes, at most 10 minutes.

        Returns:
            The results, whole or in part; None if there are none: unknown, expired, or the
            service is away.
        """
        with self._harmless("get_precomputed_results"):
            key, wait = _key(game_id), _wait(timeout_seconds)
            client, remaining = await self._connected(_ANSWER_LIMIT)
            results = await client.get_results(key, wait=wait, timeout=remaining)
            return result_from(results)
        return None

    def get_status(self, game_id: GameId) -> PrecomputeStatus | None:
        """Return a game's status; None if it is unknown or the service is away.

        Blocks its thread, the event loop's included, for 0.4 s at most.
        """
        with self._harmless("get_status"):
            request = pb.GetStatusRequest(namespace=self._namespace, key=_key(game_id))
            answer = self._ask_blocking(lambda stub: stub.GetStatus, request)
            return convert.status_from(answer.status)
        return None

    def get_stats(self) -> dict[str, Any]:
        """Count what is kept (`total_cached`), running (`active_tasks`) and both by status.

        `status_counts` maps "pending", "in_progress", "completed", "failed" and "cancelled" to
        counts, without the zeros. All is zero while the service is away. Blocks its thread, the
        event loop's included, for 0.4 s at most.
        """
        with self._harmless("get_stats"):
            request = pb.GetStatsRequest(namespace=self._namespace)
            answer = self._ask_blocking(lambda stub: stub.GetStats, request)
            return {
                "total_cached": answer.total_cached,
                "active_tasks": answer.active_tasks,
                "status_counts": dict(answer.status_counts),
            }
        return {"total_cached": 0, "active_tasks": 0, "status_counts": {}}

    def close(self) -> None:
        """Close all connections, as far as that is possible from here; the next call opens anew."""
        self._blocking.close()
        self._clients.close()

    @classmethod
    def _replace(cls, instance: EagerPrecompute | None) -> None:
        with cls._instance_lock:
            previous, cls._instance = cls._instance, instance
        if previous is not None:
            previous.close()

    @contextmanager
    def _harmless(self, call: str) -> Iterator[None]:
        """Log whatever the body raises, and go on behind it."""
        try:
            yield
            self._outage.answered(call)
        except NotFound:
            self._outage.answered(call)
        except InvalidRequest as exc:
            self._outage.answered(call)
            logger.warning("%s was refused: %s", call, exc)
        except HeadstartError as exc:
            self._outage.failed(call, exc)
        except TypeError as exc:
            # An argument's mistake; if it is one of this client, the traceback shows its place.
            debugging = logger.isEnabledFor(logging.DEBUG)
            logger.warning("%s was refused: %s", call, exc, exc_info=debugging)
        except Exception:  # a head start must never fail its caller's request
            logger.warning("%s failed, which is a mistake in this client", call, exc_info=True)

    async def _connected(self, limit: float) -> tuple[PrecomputeClient, float]:
        """Return this loop's client, connected, and what is left of `limit` seconds."""
        began = time.monotonic()
        self._refuse_settings()
        client = self._clients.of_this_loop()
        # Otherwise a call to a host that accepts no connection would take all of its timeout.
        await client.connect(timeout=_CONNECT_LIMIT)
        return client, max(_LEAST, limit - (time.monotonic() - began))

    def _refuse_settings(self) -> None:
        if self._mistake is not None:
            raise ServiceUnavailable(str(self._mistake))

    def _ask_blocking(
        self,
        method: Callable[[PrecomputeServiceStub], grpc.UnaryUnaryMultiCallable[Request, Response]],
        request: Request,
    ) -> Response:
        """Call from a plain function: inside a running loop, an asyncio call would never end."""
        self._refuse_settings()
        return self._blocking.call(method, request, _BLOCKING_LIMIT)


def _key(game_id: GameId) -> str:
    """Return a game's id as the service's key."""
    if isinstance(game_id, bool) or not isinstance(game_id, str | int | UUID):
        arguments.wrong_type("game_id", game_id, "a str, an int or a UUID")
    return requests.text("game_id", game_id if isinstance(game_id, str) else str(game_id))


def _wait(timeout_seconds: float | timedelta | None) -> float:
    """Return how long to wait, 0 to `_LONGEST_WAIT` seconds."""
    seconds = arguments.optional_seconds("timeout_seconds", timeout_seconds)
    if seconds is None:
        return _LONGEST_WAIT
    return 0.0 if isnan(seconds) else max(0.0, min(seconds, _LONGEST_WAIT))
