"""How many lines refusals write, on a virtual clock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2

from headstart_service.api.call_limits import CallLimits
from headstart_service.api.dependencies import ApiRules, Dependencies
from headstart_service.api.grpc_server import rpc_handlers
from headstart_service.api.refusals import EACH, WINDOW, Refusals
from headstart_service.api.results.outgoing import Outgoing
from headstart_service.auth.grants import Grant, Grants, Verb, digest_of
from headstart_service.domain import RunKey
from headstart_service.domain.errors import (
    CapacityExhausted,
    InvalidRequest,
    PermissionDenied,
    RunNotFound,
    Unauthenticated,
)
from headstart_service.domain.log_fields import FIELDS
from headstart_service.pipeline.registry import Registry
from tests.support.run_store import FakeRunStore
from tests.support.virtual_time import run_virtually

STRANGER = Unauthenticated("a token is needed")
DENIED = PermissionDenied("namespace", "the token 'shop' lacks write in 'x'", "write")


def fields(caplog: pytest.LogCaptureFixture) -> list[Mapping[str, Any]]:
    return [record.__dict__[FIELDS] for record in caplog.records]


def test_a_refusal_is_one_line_with_who_was_refused_what(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse() -> None:
        with Refusals() as refusals:
            run = RunKey("x", "k")
            refusals.note(
                "StartPrecompute", DENIED, token="shop", peer="ipv4:10.0.0.1:9", run=lambda: run
            )
            refusals.note("GetStatus", RunNotFound("x", "k"))
            refusals.note("GetStatus", InvalidRequest([]))

    run_virtually(refuse())
    [line] = fields(caplog)
    assert line == {
        "event": "call.refused",
        "namespace": "x",
        "key": "k",
        "method": "StartPrecompute",
        "outcome": "PERMISSION_DENIED",
        "token": "shop",
        "peer": "ipv4:10.0.0.1:9",
        "error": str(DENIED),
    }
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize("token", ["t", "stranger", None])
@pytest.mark.parametrize("data", [b"", b"\xff"])
async def test_beyond_the_limit_any_caller_and_request_is_refused_in_one_line(
    token: str | None, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[int] = []

    async def abort(status: Any) -> None:
        ended.append(status.code.value[0])
        raise grpc.aio.AbortError

    grants = Grants({digest_of("t"): Grant("shop", None, frozenset(Verb))})
    reader: Any = None
    store: Any = FakeRunStore()
    rules = ApiRules(result_ttl=600.0, max_records=9)
    api = Dependencies(store, Registry([]), reader, rules)
    handlers: Any = rpc_handlers(api, CallLimits(calls=0), grants, Outgoing())
    sent = () if token is None else (("authorization", f"Bearer {token}"),)
    context = SimpleNamespace(
        time_remaining=lambda: None,
        abort_with_status=abort,
        peer=lambda: "ipv4:10.0.0.1:9",
        invocation_metadata=lambda: sent,
    )
    with pytest.raises(grpc.aio.AbortError):
        await handlers["StartPrecompute"].unary_unary(data, context)
    [line] = fields(caplog)
    assert ended == [code_pb2.RESOURCE_EXHAUSTED]
    assert (line["outcome"], line.get("token")) == (
        "RESOURCE_EXHAUSTED",
        "shop" if token == "t" else None,
    )


def test_a_flood_is_ten_lines_and_a_sum_in_ten_seconds_and_reads_no_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read = 0

    def run() -> None:
        nonlocal read
        read += 1

    async def flood() -> None:
        refusals = Refusals()
        for number in range(1000):
            refusals.note(("GetStatus", "ListPipelines")[number % 2], STRANGER, run=run)
        # Others are not hidden by it.
        refusals.note("StartPrecompute", DENIED, token="shop")
        refusals.note("StartPrecompute", CapacityExhausted("full", 1.0), token="shop")
        await asyncio.sleep(WINDOW + 0.1)
        refusals.note("GetStatus", STRANGER)

    run_virtually(flood())
    events = [line["event"] for line in fields(caplog)]
    assert events == ["call.refused"] * (EACH + 2) + ["calls.refused", "call.refused"]
    more = fields(caplog)[-2]
    assert (more["outcome"], more["count"]) == ("UNAUTHENTICATED", 1000 - EACH)
    assert more["methods"] == {"GetStatus": 495, "ListPipelines": 495}
    assert read == EACH


def test_what_is_not_summed_up_when_the_process_ends_is_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def flood() -> None:
        with Refusals(each=1) as refusals:
            for _ in range(3):
                refusals.note("GetStatus", STRANGER)

    run_virtually(flood())
    assert fields(caplog)[-1]["count"] == 2


def test_a_flood_of_paths_writes_as_little_as_one_of_methods(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A stranger chooses the paths of the live page's files."""

    async def flood() -> None:
        with Refusals() as refusals:
            for number in range(5000):
                refusals.note(f"GET /static/{number}{'x' * 10_000}", STRANGER)

    run_virtually(flood())
    assert [line["event"] for line in fields(caplog)] == ["call.refused"] * EACH + ["calls.refused"]
    assert fields(caplog)[-1]["count"] == 5000 - EACH
    assert sum(fields(caplog)[-1]["methods"].values()) == 5000 - EACH
    assert (
        max(
            len(str(line)) + len(r.getMessage())
            for line, r in zip(fields(caplog), caplog.records, strict=True)
        )
        < 8000
    )
