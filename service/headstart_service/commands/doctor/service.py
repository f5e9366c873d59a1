"""What the server reports: its health, what this client's token may do, how fast it answers."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from statistics import median, quantiles
from typing import Any, Final

import grpc

from headstart import (
    HeadstartError,
    NotFound,
    PermissionDenied,
    ServiceUnavailable,
    Unauthenticated,
)
from headstart._for_service import Endpoint, from_rpc_error
from headstart.v1 import precompute_pb2 as pb
from headstart.v1.precompute_pb2_grpc import PrecomputeServiceStub

from ...base.output import spoken
from ...domain.causes import Facts, causes
from .load import check_load
from .report import Check, fail, ok, warn

_SERVICE: Final = "headstart.v1.PrecomputeService"
_SERVING: Final = b"\x08\x01"
"""HealthCheckResponse{status: SERVING}. The light client has no stubs of gRPC health."""
_CALLS: Final = 20
_BARE: Final = 5
_SLOW: Final = 0.05


def knows_service(channel: grpc.Channel, timeout: float) -> bool:
    """Whether a Headstart server answers, serving or not."""
    try:
        _health_reply(channel, timeout)
    except grpc.RpcError:
        return False
    return True


def _health_reply(channel: grpc.Channel, timeout: float) -> bytes:
    """Return the reply of gRPC's health check of the service. Raises grpc.RpcError."""
    name = _SERVICE.encode()
    check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
    answer: bytes = check(b"\x0a" + bytes([len(name)]) + name, timeout=timeout)
    return answer


class Server:
    """One connection, which serves all checks."""

    def __init__(self, endpoint: Endpoint, namespace: str, timeout: float) -> None:
        """Open nothing yet."""
        self._endpoint = endpoint
        self._namespace = namespace
        self._timeout = timeout
        # No run has this random key, so a read returns nothing and a cancel ends nothing.
        self._key = f"doctor-{uuid.uuid4().hex}"

    def checks(self) -> Iterator[Check]:
        """Yield the checks; stop where further ones would fail for the same reason."""
        try:
            channel = self._endpoint.open_blocking()
        except HeadstartError as error:
            yield fail("health", str(error), "see the TLS files")
            return
        with channel:
            healthy = self._health(channel)
            yield healthy
            self._stub: Any = PrecomputeServiceStub(channel)
            token, accepted = self._token()
            yield token
            if not accepted:
                return
            yield self._verbs()
            yield from self._work()
            yield from self._latency()

    def _health(self, channel: grpc.Channel) -> Check:
        try:
            answer = _health_reply(channel, self._timeout)
        except grpc.RpcError as error:
            code = error.code()
            if code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED):
                return fail("health", f"there is no {_SERVICE}", "is this a Headstart server?")
            reason = from_rpc_error(error)
            advice = "see the checks above"
            if "HTTP/2" in str(reason):  # gRPC: "Failed parsing HTTP/2 (…"
                advice = "is this an HTTP port? Give the port of gRPC, by default 50051"
            return fail("health", f"no answer: {reason}", advice)
        if answer == _SERVING:
            return ok("health", f"{_SERVICE} is SERVING")
        return fail(
            "health",
            f"{_SERVICE} is NOT_SERVING",
            "its store is away or has other partitions, its worker is not warm yet, or it stops: "
            "see its /readyz and its log, and run `headstart doctor --local` there",
        )

    def _ask(self, method: str, request: Any, *, known: bool = True) -> HeadstartError | Any:
        """The answer, or the error instead of raising it; without `known` no token is sent."""
        try:
            metadata = self._endpoint.metadata() if known else ()
            return getattr(self._stub, method)(request, timeout=self._timeout, metadata=metadata)
        except grpc.RpcError as error:
            return from_rpc_error(error)
        except HeadstartError as error:
            return error

    def _token(self) -> tuple[Check, bool]:
        """Whether the token is accepted, or none needed."""
        answer = self._ask("ListPipelines", pb.ListPipelinesRequest())
        brings = self._endpoint.token is not None
        if isinstance(answer, Unauthenticated):
            if brings:
                return fail(
                    "token",
                    "it is not accepted",
                    "its digest must stand in the file of the server's HEADSTART_TOKENS",
                ), False
            advice = "set HEADSTART_TOKEN, or HEADSTART_TOKEN_FILE to the file that holds it"
            return fail("token", "the server wants one, and there is none", advice), False
        if isinstance(answer, HeadstartError):
            return fail("token", f"not checked: {answer}", "mend what is above first"), False
        bare = self._ask("ListPipelines", pb.ListPipelinesRequest(), known=False)
        if isinstance(bare, Unauthenticated):
            return ok("token", "accepted"), True
        found = "none is asked for" + (", so this client's makes no difference" if brings else "")
        return ok("token", found), True

    def _verbs(self) -> Check:
        tries: dict[str, Callable[[], Any]] = {
            "read": lambda: self._ask("GetStatus", self._about(pb.GetStatusRequest)),
            "write": lambda: self._ask("CancelPrecompute", self._about(pb.CancelPrecomputeRequest)),
            "admin": lambda: self._ask("GetStats", pb.GetStatsRequest()),
        }
        may = []
        for verb, attempt in tries.items():
            answer = attempt()
            if isinstance(answer, ServiceUnavailable):
                return fail(
                    "store",
                    f"the server cannot use it: {answer}",
                    "run `headstart doctor --local` where the server runs",
                )
            if isinstance(answer, NotFound) or not isinstance(answer, HeadstartError):
                may.append(verb)
            elif not isinstance(answer, PermissionDenied):
                return fail("verbs", f"{verb}: {answer}", "see the server's log")
        where = self._namespace or "default"
        if "read" in may or "write" in may:
            return ok("verbs", f"may {', '.join(may)} in namespace {where}")
        return warn(
            "verbs",
            f"may neither read nor write in namespace {where}",
            "use --namespace with one of the token's, or a token that grants more",
        )

    def _about(self, request: Any) -> Any:
        return request(namespace=self._namespace, key=self._key)

    def _work(self) -> Iterator[Check]:
        pipelines = self._ask("ListPipelines", pb.ListPipelinesRequest())
        if not isinstance(pipelines, HeadstartError):
            names = [each.name for each in pipelines.pipelines]
            if names:
                yield ok("pipelines", ", ".join(names))
            else:
                yield warn("pipelines", "none", "set HEADSTART_BRIDGING or HEADSTART_PIPELINES")
        yield from check_load(self._ask, self._namespace)

    def _latency(self) -> Iterator[Check]:
        about = self._about(pb.GetStatusRequest)
        trips = self._times(_CALLS, lambda: self._ask("GetStatus", about))
        # ListPipelines does not read the store, so the difference is the store's.
        bare = self._times(_BARE, lambda: self._ask("ListPipelines", pb.ListPipelinesRequest()))
        cuts = quantiles(trips, n=20, method="inclusive")
        slow = causes(Facts(store_trip=cuts[9] - median(bare)))
        yield from (warn(cause.name, cause.found, cause.advice) for cause in slow)
        found = f"p50 {spoken(cuts[9])}, p95 {spoken(cuts[18])} of {_CALLS} calls"
        if cuts[9] <= _SLOW or slow:
            yield ok("latency", found)
        else:
            yield warn("latency", found, "is the server far away, or its machine busy?")

    def _times(self, count: int, call: Callable[[], Any]) -> list[float]:
        trips = []
        for _ in range(count):
            began = time.perf_counter()
            call()
            trips.append(time.perf_counter() - began)
        return trips
