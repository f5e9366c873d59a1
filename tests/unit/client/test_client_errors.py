"""gRPC errors become ours, once, with all that they carry."""

import pickle
import traceback
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import headstart
from headstart import (
    HeadstartError,
    InvalidRequest,
    NotFound,
    PrecomputeClient,
    ResourceExhausted,
    ServiceError,
    ServiceUnavailable,
    Violation,
)
from headstart._errors import from_rpc_error, rpc_details
from tests.support.scripted_service import Fault

PLAIN = {
    grpc.StatusCode.NOT_FOUND: headstart.NotFound,
    grpc.StatusCode.DEADLINE_EXCEEDED: headstart.DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: headstart.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: headstart.PermissionDenied,
    grpc.StatusCode.UNAVAILABLE: headstart.ServiceUnavailable,
    grpc.StatusCode.CANCELLED: headstart.ServiceUnavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: headstart.ResourceExhausted,
    grpc.StatusCode.INVALID_ARGUMENT: headstart.InvalidRequest,
}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"])
async def test_every_code_has_its_exception(service: Any, code: Any) -> None:
    service.on("GetStatus", Fault(code, "the reason"))

    async with PrecomputeClient(service.address, max_attempts=1) as client:
        with pytest.raises(HeadstartError, match="the reason") as caught:
            await client.get_status("game-1")

    error = caught.value
    assert type(error) is PLAIN.get(code, ServiceError)
    theirs = isinstance(error, ServiceUnavailable | headstart.DeadlineExceeded | ServiceError)
    assert isinstance(error.__cause__, grpc.aio.AioRpcError) is theirs
    # One traceback, that of the call; gRPC's error is named where it is more than a mistake.
    told = "".join(traceback.format_exception(error))
    assert told.count("Traceback") == 1
    assert ("AioRpcError" in told) is theirs
    assert "During handling" not in told


async def test_invalid_request_names_every_violation_once(service: Any) -> None:
    violations = [
        ("key", "must not be empty"),
        ("bridging.anchor", "must have a letter"),
        ("key", "must not be empty"),
        ("", "and 3 more"),
    ]
    # As the service does: its message has the violations, too.
    message = "; ".join(f"{field}: {rule}" for field, rule in violations)
    service.on(
        "StartPrecompute",
        Fault(grpc.StatusCode.INVALID_ARGUMENT, message, violations=violations),
    )

    async with PrecomputeClient(service.address) as client:
        with pytest.raises(InvalidRequest) as caught:
            await client.start_bridging("", "1", "forest")

    assert caught.value.violations == (
        Violation("key", "must not be empty"),
        Violation("bridging.anchor", "must have a letter"),
        Violation("", "and 3 more"),
    )
    assert str(caught.value) == (
        "key: must not be empty; bridging.anchor: must have a letter; and 3 more"
    )


async def test_resource_exhausted_has_a_retry_delay(service: Any) -> None:
    service.on("StartPrecompute", Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=2.5))

    async with PrecomputeClient(service.address) as client:
        with pytest.raises(ResourceExhausted) as caught:
            await client.start_bridging("game-1", "ocean", "forest")

    assert caught.value.retry_after == 2.5


async def test_service_unavailable_has_a_retry_delay(service: Any) -> None:
    service.on("GetStats", Fault(grpc.StatusCode.UNAVAILABLE, "store away", retry_after=1.0))

    async with PrecomputeClient(service.address, max_attempts=1) as client:
        with pytest.raises(ServiceUnavailable, match="store away") as caught:
            await client.get_stats()

    assert caught.value.retry_after == 1.0


async def test_service_error_has_the_id_to_search_the_log_for(service: Any) -> None:
    service.on("GetStats", Fault(grpc.StatusCode.INTERNAL, error_id="e-42"))

    async with PrecomputeClient(service.address) as client:
        with pytest.raises(ServiceError) as caught:
            await client.get_stats()

    assert (caught.value.error_id, caught.value.code) == ("e-42", grpc.StatusCode.INTERNAL)


async def test_an_error_without_details_has_none(service: Any) -> None:
    service.on("StartPrecompute", Fault(grpc.StatusCode.RESOURCE_EXHAUSTED))
    service.on("GetStats", Fault(grpc.StatusCode.INTERNAL))

    async with PrecomputeClient(service.address) as client:
        with pytest.raises(ResourceExhausted) as exhausted:
            await client.start_bridging("game-1", "ocean", "forest")
        with pytest.raises(ServiceError) as internal:
            await client.get_stats()

    assert exhausted.value.retry_after is None
    assert internal.value.error_id is None


def _status(*details: tuple[str, bytes]) -> bytes:
    status = status_pb2.Status(code=3, message="no")
    for name, value in details:
        status.details.add(type_url=f"type.googleapis.com/google.rpc.{name}", value=value)
    return status.SerializeToString()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xff\xff",
        b"not protobuf at all",
        _status(("BadRequest", b"\xff"), ("RetryInfo", b"\x0a\xff"), ("ErrorInfo", b"\xff")),
        _status(("BadRequest", b"\x0a\x03\x0a\x01\xff")),  # a field name that is not UTF-8
        _status(("RetryInfo", b"")),
        _status(("SomethingNew", b"\x08\x01")),
    ],
)
async def test_malformed_details_are_left_out(service: Any, raw: bytes) -> None:
    service.on("GetStats", Fault(grpc.StatusCode.INVALID_ARGUMENT, "no", raw_details=raw))

    async with PrecomputeClient(service.address) as client:
        with pytest.raises(InvalidRequest, match=r"^no$") as caught:
            await client.get_stats()

    assert caught.value.violations == ()


def test_what_is_well_formed_survives_malformed_neighbours() -> None:
    good = error_details_pb2.ErrorInfo(metadata={"error_id": "e-1"}).SerializeToString()
    raw = _status(("BadRequest", b"\xff"), ("ErrorInfo", good))

    details = rpc_details.read([("other", "text"), (rpc_details.METADATA_KEY, raw)])

    assert (details.violations, details.metadata) == ((), {"error_id": "e-1"})


def test_a_negative_retry_delay_means_now() -> None:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(-5)

    details = rpc_details.read(
        [(rpc_details.METADATA_KEY, _status(("RetryInfo", info.SerializeToString())))]
    )

    assert details.retry_after == 0.0


def test_an_rpc_error_without_a_status_is_a_service_error() -> None:
    error = from_rpc_error(grpc.RpcError("from an interceptor"))

    assert (type(error), str(error)) == (ServiceError, "from an interceptor")


def test_the_synchronous_channels_errors_are_translated_alike(service: Any) -> None:
    service.on("GetStats", Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after=3.0))
    with grpc.insecure_channel(service.address) as channel:
        ask = channel.unary_unary("/headstart.v1.PrecomputeService/GetStats")
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"", timeout=5)

    error = from_rpc_error(caught.value)

    assert isinstance(error, ResourceExhausted)
    assert (str(error), error.retry_after) == ("full", 3.0)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("no", [Violation("key", "must not be empty")]),
        ResourceExhausted("full", 2.0),
        ServiceError("INTERNAL: no", "e-1", grpc.StatusCode.INTERNAL),
        NotFound("gone"),
    ],
)
def test_errors_cross_process_pools_whole(error: HeadstartError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), vars(copy)) == (type(error), vars(error))
