"""Starts runs from threads: the methods of `BlockingClient` that begin a run, or skip one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from headstart._clients.batches import Start
from headstart._clients.client import PrecomputeClient
from headstart._errors import HeadstartError
from headstart._get_or_compute.budgeted_call import BUDGET
from headstart._messages import arguments
from headstart._messages.artifacts import Json
from headstart._messages.results import RecipientType, Started

T = TypeVar("T")


class BlockingStarts:
    """Adds to `BlockingClient` the calls that start runs."""

    if TYPE_CHECKING:

        def _call(self, make: Callable[[PrecomputeClient], Coroutine[Any, Any, T]]) -> T: ...

    def start_bridging(
        self,
        key: str,
        anchor: str,
        target: str,
        recipient_type: RecipientType | str | Enum = RecipientType.HUMAN,
        *,
        clue_count: int | None = None,
        null_sample_count: int | None = None,
        ttl: float | timedelta | None = None,
        restart: bool = False,
        request_id: str | None = None,
        expected_need_in: float | timedelta | None = None,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Started:
        """Start a game as `PrecomputeClient.start_bridging`."""
        return self._call(
            lambda client: client.start_bridging(
                key,
                anchor,
                target,
                recipient_type,
                clue_count=clue_count,
                null_sample_count=null_sample_count,
                ttl=ttl,
                restart=restart,
                request_id=request_id,
                expected_need_in=expected_need_in,
                namespace=namespace,
                timeout=timeout,
            )
        )

    def start(
        self,
        key: str,
        pipeline: str,
        inputs: Mapping[str, Json],
        *,
        ttl: float | timedelta | None = None,
        restart: bool = False,
        request_id: str | None = None,
        expected_need_in: float | timedelta | None = None,
        namespace: str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Started:
        """Start a run as `PrecomputeClient.start`."""
        return self._call(
            lambda client: client.start(
                key,
                pipeline,
                inputs,
                ttl=ttl,
                restart=restart,
                request_id=request_id,
                expected_need_in=expected_need_in,
                namespace=namespace,
                timeout=timeout,
            )
        )

    def start_bridging_or_skip(
        self,
        key: str,
        anchor: str,
        target: str,
        recipient_type: RecipientType | str | Enum = RecipientType.HUMAN,
        *,
        budget: float | timedelta = BUDGET,
        clue_count: int | None = None,
        null_sample_count: int | None = None,
        ttl: float | timedelta | None = None,
        restart: bool = False,
        request_id: str | None = None,
        expected_need_in: float | timedelta | None = None,
        namespace: str | None = None,
    ) -> Started | None:
        """Start a game, or skip it, as `PrecomputeClient.start_bridging_or_skip`."""
        return self._call(
            lambda client: client.start_bridging_or_skip(
                key,
                anchor,
                target,
                recipient_type,
                budget=budget,
                clue_count=clue_count,
                null_sample_count=null_sample_count,
                ttl=ttl,
                restart=restart,
                request_id=request_id,
                expected_need_in=expected_need_in,
                namespace=namespace,
            )
        )

    def start_or_skip(
        self,
        key: str,
        pipeline: str,
        inputs: Mapping[str, Json],
        *,
        budget: float | timedelta = BUDGET,
        ttl: float | timedelta | None = None,
        restart: bool = False,
        request_id: str | None = None,
        expected_need_in: float | timedelta | None = None,
        namespace: str | None = None,
    ) -> Started | None:
        """Start a run, or skip it, as `PrecomputeClient.start_or_skip`."""
        return self._call(
            lambda client: client.start_or_skip(
                key,
                pipeline,
                inputs,
                budget=budget,
                ttl=ttl,
                restart=restart,
                request_id=request_id,
                expected_need_in=expected_need_in,
                namespace=namespace,
            )
        )

    def start_many(
        self, starts: Iterable[Start], *, timeout: float | timedelta | None = None
    ) -> list[Started | HeadstartError]:
        """Start many runs as `PrecomputeClient.start_many`."""
        given = arguments.items("starts", starts, Start, "headstart.Start")
        return self._call(lambda client: client.start_many(given, timeout=timeout))
