"""Errors as callers get them, over a real connection: code, text, details."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from headstart_service.api.status import guarded, guarded_stream, status_of
from headstart_service.domain.errors import (
    CapacityExhausted,
    HeadstartError,
    InvalidRequest,
    LeaseLost,
    RecordDamaged,
    RunNotFound,
    StepFailed,
    StoreUnavailable,
    Violation,
)

SECRET = "redis://:hunter2@db"
Call = Callable[[], Awaitable[object]]


@asynccontextmanager
async def raising(error: Exception) -> AsyncIterator[tuple[Call, Call]]:
    """A unary and a streaming call of methods that raise `error`."""

    async def unary(_request, _context):
        raise error

    async def stream(_request, _context) -> AsyncGenerator[bytes]:
        yield b"first"
        raise error

    handlers = {
        "unary": grpc.unary_unary_rpc_method_handler(guarded(unary, nullcontext())),
        "stream": grpc.unary_stream_rpc_method_handler(guarded_stream(stream, nullcontext())),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def call_unary() -> object:
            return await channel.unary_unary("/test/unary")(b"", timeout=5)

        async def call_stream() -> object:
            call = channel.unary_stream("/test/stream")(b"", timeout=5)
            return [part async for part in call]

        yield call_unary, call_stream
    await server.stop(None)


async def told(error: Exception) -> tuple[grpc.aio.AioRpcError, list[Message]]:
    """What callers of both kinds of methods get; it must be the same."""
    found = []
    async with raising(error) as calls:
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call()
            found.append(caught.value)
    first, second = found
    assert first.code() == second.code()
    status = rpc_status.from_call(first)
    assert status is not None
    return first, [unpacked(detail) for detail in status.details]


def unpacked(detail) -> Message:
    kind = getattr(error_details_pb2, detail.TypeName().rpartition(".")[2])
    message = kind()
    assert detail.Unpack(message)
    return message


async def test_an_invalid_request_lists_its_violations() -> None:
    error, details = await told(
        InvalidRequest([Violation("key", "is empty"), Violation("bridging.anchor", "żółw 🎲")])
    )
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "key: is empty; bridging.anchor: żółw 🎲"
    (bad,) = details
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad.field_violations] == [
        ("key", "is empty"),
        ("bridging.anchor", "żółw 🎲"),
    ]


@pytest.mark.parametrize(
    "violation",
    [
        Violation("required_steps[7]", "must be one of: one, two"),
        Violation("custom.inputs." + "é" * 5000, "🎲" * 5000),
    ],
)
async def test_more_violations_than_a_status_can_carry_are_counted(violation: Violation) -> None:
    error, (bad,) = await told(InvalidRequest([violation] * 1000))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(bad, error_details_pb2.BadRequest)
    *listed, rest = bad.field_violations
    assert len(listed) >= 3
    assert rest.field == ""
    assert rest.description == f"and {1000 - len(listed)} more"
    assert error.details().endswith("…")


async def test_an_unknown_key_is_not_found() -> None:
    error, details = await told(RunNotFound("default", "game-1"))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "nothing is precomputed under default/game-1"
    assert details == []


async def test_a_damaged_record_is_data_loss_that_names_the_key_here_and_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error, details = await told(RecordDamaged("default/game-1"))
    assert error.code() is grpc.StatusCode.DATA_LOSS
    said = "the record of default/game-1 is damaged; start it again with restart"
    assert error.details() == said
    assert details == []
    assert said in caplog.text


@pytest.mark.parametrize(
    ("raised", "code", "text"),
    [
        (
            CapacityExhausted("all 5 places are held", 2.5),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "all 5 places are held",
        ),
        (StoreUnavailable(SECRET, 2.5), grpc.StatusCode.UNAVAILABLE, "the store is unavailable"),
    ],
)
async def test_what_passes_has_a_retry_delay(
    raised: Exception, code: grpc.StatusCode, text: str
) -> None:
    error, (retry,) = await told(raised)
    assert error.code() is code
    assert error.details() == text
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToTimedelta().total_seconds() == 2.5


@pytest.mark.promise("A bug returns an id only", "`api/status`")
@pytest.mark.parametrize(
    "raised", [RuntimeError(SECRET), LeaseLost(SECRET), StepFailed(SECRET), TimeoutError(SECRET)]
)
async def test_anything_else_is_internal_with_an_id_and_no_text(
    raised: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    error, (info,) = await told(raised)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert isinstance(info, error_details_pb2.ErrorInfo)
    error_id = info.metadata["error_id"]
    assert re.fullmatch("[0-9a-f]{12}", error_id)
    assert error.details() == f"internal error {error_id}"
    assert SECRET not in str(error.trailing_metadata())
    (record,) = [r for r in caplog.records if error_id in r.getMessage()]
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert record.exc_info[1] is raised


@pytest.mark.parametrize("kind", HeadstartError.__subclasses__())
def test_every_error_of_the_tree_has_a_status(kind: type[HeadstartError]) -> None:
    arguments = {
        "InvalidRequest": ([Violation("f", "d")],),
        "RunNotFound": ("n", "k"),
        "CapacityExhausted": ("full", 1.0),
        "PermissionDenied": ("f", "rule", "write"),
        "StepsReported": ([],),
    }.get(kind.__name__, ("text",))
    status = status_of(kind(*arguments))
    assert isinstance(status, status_pb2.Status)
    assert status.code != 0


async def test_a_method_that_aborts_by_itself_keeps_its_own_status() -> None:
    async def unary(_request, context):
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")

    handlers = {"unary": grpc.unary_unary_rpc_method_handler(guarded(unary, nullcontext()))}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/test/unary")(b"", timeout=5)
    await server.stop(None)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
