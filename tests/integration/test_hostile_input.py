"""What a caller may write into a request, and that it stays there: on real processes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from headstart.v1 import precompute_pb2 as pb
from headstart.v1 import precompute_pb2_grpc as pb_grpc
from headstart_service.domain import RunKey
from tests.support.processes import api, worker
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

FORGED = "2026-01-01 00:00:00,000 ERROR   headstart_service.processes.api: forged"
PARTS = ("\n", "\r", "\0", "\x1b[31m", "\u2028", "\u0085", "{0}", "{", "}", "%s", "%(name)s", "*")
PARTS += ("?", "[", ":", ";", "..", "/", "default", "x", "é", "🌊", f"\n{FORGED}", "x" * 300)
TEXT = st.one_of(
    st.lists(st.sampled_from(PARTS), max_size=5).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
)
KEYS = st.one_of(
    TEXT,
    st.lists(st.sampled_from([part for part in PARTS if part.isprintable()]), min_size=1).map(
        lambda parts: "".join(parts)[:80]
    ),
)
LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) +[\w.]+: [^\n]*"
    r"|headstart worker ready|    .*|"
)
SETTINGS = {
    "HEADSTART_BRIDGING": "false",
    "HEADSTART_PIPELINES": "tests.support.echo:ECHO",
    "HEADSTART_MAX_CACHED_RESULTS": "100000",
}
EXPECTED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


@pytest.mark.promise("Callers cannot forge log lines", "control characters are escaped")
async def test_no_text_of_a_caller_leaves_its_key_or_its_line_of_the_log(valkey: Valkey):
    accepted: set[RunKey] = set()
    async with api(valkey.url, **SETTINGS) as (server, address):
        async with worker(valkey.url, **SETTINGS) as computing:
            with grpc.insecure_channel(address) as channel:
                stub: Any = pb_grpc.PrecomputeServiceStub(channel)
                _send_everything(stub, accepted)
                assert len(accepted) > 5
                async with valkey.client() as client:
                    names = {key.decode() async for key in client.scan_iter(count=1000)}
                everything = stub.GetStats(pb.GetStatsRequest(), timeout=10)
                assert everything.total_cached == len(accepted)
                await wait_until(lambda: not _unended(stub), 60)
            said = server.output.split("Headstart serves on")[0], computing.output
    records = {
        f"headstart:{{0}}:run:{key.namespace.replace(':', ';')}:{key.key}" for key in accepted
    }
    fixed = r"headstart:\{0\}:(jobs|expiry|unread|read|workers|waiting(:served:[0-2])?|tickets|ledger|unsettled|unserved|offers|starters|layout|processes|status:[a-z_]+)"
    assert {name for name in names if not re.fullmatch(fixed, name)} == records
    assert "forged" in said[1], "the worker has told of what it was sent"
    for line in "\n".join(said).split("\n"):
        assert LINE.fullmatch(line), line
        assert not line.startswith(FORGED)
        assert line.isprintable(), line


def _unended(stub: Any) -> int:
    counts = stub.GetStats(pb.GetStatsRequest(), timeout=10).status_counts
    return int(counts["pending"] + counts["in_progress"])


def _send_everything(stub: Any, accepted: set[RunKey]) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.sampled_from(["default", "a.b-0", ""]), TEXT), KEYS, TEXT)
    @example("default", "forged", f"x\n{FORGED}")
    @example("default", "{0}", "")
    @example("default", "%s", "")
    @example("default", "*?[", "")
    @example("default", ":;", "")
    @example("default", "é🌊", "")
    def send(namespace: str, key: str, text: str) -> None:
        spec = pb.CustomSpec(pipeline="echo")
        spec.inputs.update({"text": text})
        start = pb.StartPrecomputeRequest(namespace=namespace, key=key, custom=spec)
        if _code(stub.StartPrecompute, start) is None:
            accepted.add(RunKey(namespace or "default", key))
        named = {"namespace": namespace, "key": key}
        _code(stub.GetStatus, pb.GetStatusRequest(**named))
        _code(stub.GetResults, pb.GetResultsRequest(**named, required_steps=[text]))
        _code(stub.ListPrecomputes, pb.ListPrecomputesRequest(namespace=namespace, page_token=text))
        _code(stub.GetStats, pb.GetStatsRequest(namespace=namespace))
        odd = pb.StartPrecomputeRequest(key=key, custom=pb.CustomSpec(pipeline=text))
        assert _code(stub.StartPrecompute, odd) is not None

    send()


def _code(method: Callable[..., Any], request: Any) -> grpc.StatusCode | None:
    """None, or the code that a wrong request is answered with: never that of a bug."""
    try:
        method(request, timeout=10)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        if code not in EXPECTED:
            pytest.fail(f"{code}: {error.details()} for {request}")
        return code
    return None
