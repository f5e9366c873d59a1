"""Every method, with every kind of token, in every namespace: on a real server and a real Valkey."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from headstart.v1 import precompute_pb2 as pb
from headstart.v1 import precompute_pb2_grpc as pb_grpc
from headstart_service.api.dependencies import ApiRules, Dependencies
from headstart_service.api.grpc_server import build_server
from headstart_service.api.health import Health
from headstart_service.api.results.near_cache import NearCache
from headstart_service.api.results.reader import ResultReader
from headstart_service.api.results.waiting import Waiting
from headstart_service.auth.grants import Grants
from headstart_service.auth.run_tokens import RunTokens
from headstart_service.auth.token_file import parsed
from headstart_service.pipeline.registry import Registry
from headstart_service.store.connect import BLOCKING, WORKER, open_client
from headstart_service.store.events import subscription
from headstart_service.store.redis_store import RedisStore
from headstart_service.store.store_rules import StoreRules
from tests.support.reflection import services
from tests.support.tokens import Tokens, tokens_of
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until
from tests.unit.api.conftest import PIPELINE

OK, NO, WHO = (
    grpc.StatusCode.OK,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
)
TOKENS = tokens_of(
    reader=("shop", "read"),
    writer=("shop", "write"),
    both=("shop,default", "read,write"),
    wide=("*", "read,write"),
    scraper=("*", "metrics"),
    ops=("*", "admin"),
    # Others, whose names sort right beside those of `shop`.
    neighbour=("shop-2,shop.2,shop0,sho", "read,write"),
)
NAMESPACES = ("shop", "shop-2", "shop.2", "shop0", "sho", "default")
# Which namespaces each token may read and write in; "" is, for lists and counts, all of them.
MAY_READ = {
    "reader": {"shop"},
    "writer": set(),
    "both": {"shop", "default"},
    "wide": set(NAMESPACES),
    "scraper": set(),
    "ops": {*NAMESPACES, ""},
    "neighbour": {"shop-2", "shop.2", "shop0", "sho"},
}
MAY_WRITE = MAY_READ | {"reader": set(), "writer": {"shop"}}
READS = {
    "GetResults": pb.GetResultsRequest,
    "WatchResults": pb.WatchResultsRequest,
    "GetStatus": pb.GetStatusRequest,
}
WRITES = {
    "StartPrecompute": pb.StartPrecomputeRequest,
    "CancelPrecompute": pb.CancelPrecomputeRequest,
    "DeletePrecompute": partial(pb.DeletePrecomputeRequest, revision=99),  # deletes nothing
    "TouchPrecompute": pb.TouchPrecomputeRequest,
    "ReportStep": pb.ReportStepRequest,
}
LISTS = {"ListPrecomputes": pb.ListPrecomputesRequest, "GetStats": pb.GetStatsRequest}
KEYS = ("a", "b")


@dataclass
class Guarded:
    """A server that asks for tokens; each namespace keeps the same two keys, of ended runs."""

    address: str
    stub: Any
    channel: grpc.aio.Channel
    access: Grants
    cache: NearCache

    async def call(
        self, method: str, request: Any, token: str | None, tokens: Tokens = TOKENS
    ) -> Any:
        call = getattr(self.stub, method)(request, metadata=tokens.metadata(token), timeout=10)
        if method == "WatchResults":
            return await call.read()
        return await call

    async def code(self, method: str, request: Any, token: str | None) -> grpc.StatusCode:
        return await code_of(self.call(method, request, token))


async def code_of(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return OK


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def report(namespace: str, key: str) -> pb.ReportStepRequest:
    value = pb.Artifact(json="1")
    return pb.ReportStepRequest(
        namespace=namespace, key=key, revision=1, step=PIPELINE.order[0], artifact=value
    )


def start(namespace: str, key: str) -> pb.StartPrecomputeRequest:
    spec = pb.CustomSpec(pipeline="test")
    return pb.StartPrecomputeRequest(namespace=namespace, key=key, custom=spec)


@pytest.fixture
async def guarded(valkey: Valkey) -> AsyncIterator[Guarded]:
    async with AsyncExitStack() as stack:
        clients = [open_client(valkey.url, patience) for patience in (WORKER, BLOCKING)]
        for client in clients:
            stack.push_async_callback(client.aclose)
        rules = StoreRules(partitions=1, max_records=1000, failure_ttl=600.0)
        store = RedisStore(clients[0], rules, budget=2.0, connections=3)
        cache = NearCache(1_000_000)
        waiting = Waiting(store, [lambda: subscription(clients[1], store.channels)], cache)
        registry = Registry([PIPELINE])
        access = Grants(parsed(TOKENS.text, Path("tokens")), RunTokens([b"k" * 32]))
        servicer = Dependencies(
            store,
            registry,
            ResultReader(waiting, cache, registry),
            ApiRules(result_ttl=600.0, max_records=1000, separate=True),
            grants=access,
        )
        health = Health()
        server = build_server(servicer, health, grants=access)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        listening = asyncio.create_task(waiting.run())
        await wait_until(lambda: waiting.receiving)
        address = f"127.0.0.1:{port}"
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        made = Guarded(address, pb_grpc.PrecomputeServiceStub(channel), channel, access, cache)
        for namespace in NAMESPACES:
            for key in KEYS:
                await made.call("StartPrecompute", start(namespace, key), "ops")
                cancel = pb.CancelPrecomputeRequest(namespace=namespace, key=key)
                await made.call("CancelPrecompute", cancel, "ops")
        yield made
        listening.cancel()
        await asyncio.wait({listening})


@pytest.mark.promise("Each method checks the token's namespaces", "`auth/grants`")
@pytest.mark.parametrize("token", [*MAY_READ, "stranger", None])
async def test_each_method_obeys_the_token_in_every_namespace(guarded: Guarded, token: str | None):
    read, write = MAY_READ.get(token or "", set()), MAY_WRITE.get(token or "", set())
    known = token in MAY_READ

    def expected(*, granted: bool) -> grpc.StatusCode:
        return (OK if granted else NO) if known else WHO

    told = {}
    right = {}
    for namespace in (*NAMESPACES, ""):
        run = namespace or "default"
        for method, request in (*READS.items(), *WRITES.items()):
            match method:
                case "StartPrecompute":
                    sent = start(namespace, "a")
                case "ReportStep":
                    sent = report(namespace, "a")
                case _:
                    sent = request(namespace=namespace, key="a")
            told[method, namespace] = await guarded.code(method, sent, token)
            granted = run in (read if method in READS else write)
            right[method, namespace] = expected(granted=granted)
        sign = pb.CreateRunTokenRequest(namespace=namespace, key="a")
        told["CreateRunToken", namespace] = await guarded.code("CreateRunToken", sign, token)
        right["CreateRunToken", namespace] = expected(granted=run in read)
        keys = pb.BatchGetResultsRequest(namespace=namespace, keys=["a"])
        told["BatchGetResults", namespace] = await guarded.code("BatchGetResults", keys, token)
        right["BatchGetResults", namespace] = expected(granted=run in read)
        starts = pb.BatchStartPrecomputesRequest(requests=[start(namespace, "a")])
        told["BatchStartPrecomputes", namespace] = await _code_of_item(guarded, starts, token)
        right["BatchStartPrecomputes", namespace] = expected(granted=run in write)
        for method, request in LISTS.items():
            told[method, namespace] = await guarded.code(
                method, request(namespace=namespace), token
            )
            right[method, namespace] = expected(granted=namespace in read)
    told["ListPipelines", ""] = await guarded.code(
        "ListPipelines", pb.ListPipelinesRequest(), token
    )
    right["ListPipelines", ""] = expected(granted=True)
    assert told == right
    assert {method for method, _ in told} == set(
        pb.DESCRIPTOR.services_by_name["PrecomputeService"].methods_by_name
    )


async def _code_of_item(
    guarded: Guarded, request: pb.BatchStartPrecomputesRequest, token: str | None
) -> grpc.StatusCode:
    """The code of a batch's only start, or that of the call."""
    try:
        [result] = (await guarded.call("BatchStartPrecomputes", request, token)).results
    except grpc.aio.AioRpcError as error:
        return error.code()
    return next(each for each in grpc.StatusCode if each.value[0] == result.error.code)


@pytest.mark.promise("Refusals hide whether keys exist", "refused before validation")
@pytest.mark.parametrize("method", [*READS, *WRITES])
@pytest.mark.parametrize("token", ["reader", "stranger", None])
async def test_a_refusal_is_the_same_whether_the_key_exists_or_not(
    guarded: Guarded, method: str, token: str | None
):
    said = []
    for key in ("a", "no-such-key", "", "x" * 1000, "\n"):
        request: Any = (READS | WRITES)[method](namespace="default", key=key)
        error = await refused(guarded.call(method, request, token))
        said.append((error.code(), error.details(), error.trailing_metadata()))
    assert len({repr(each) for each in said}) == 1


@pytest.mark.promise(
    "A token for one run reads that run alone", "its run is checked with each call"
)
async def test_a_token_for_one_run_reads_that_run_and_does_nothing_else(guarded: Guarded):
    sign = pb.CreateRunTokenRequest(namespace="shop", key="a")
    made = await guarded.call("CreateRunToken", sign, "reader")

    async def code(method: str, request: Any) -> grpc.StatusCode:
        metadata = (("authorization", f"Bearer {made.token}"),)
        call = getattr(guarded.stub, method)(request, metadata=metadata, timeout=10)
        try:
            await (call.read() if method == "WatchResults" else call)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return OK

    own, other = {"namespace": "shop", "key": "a"}, {"namespace": "shop", "key": "b"}
    for method, request in READS.items():
        for _ in range(2):  # from the store, and from the near-cache
            assert await code(method, request(**own)) is OK, method
            assert await code(method, request(**other)) is NO, method
            assert await code(method, request(namespace="default", key="a")) is NO, method
    batch = pb.BatchGetResultsRequest
    assert await code("BatchGetResults", batch(namespace="shop", keys=["a"])) is OK
    assert await code("BatchGetResults", batch(namespace="shop", keys=["a", "b"])) is NO
    watch = pb.WatchResultsRequest(namespace="shop", key="a", keys=["b"])
    assert await code("WatchResults", watch) is NO
    for method, request in WRITES.items():
        assert await code(method, request(**own)) is NO, method
    for method, request in LISTS.items():
        assert await code(method, request(namespace="shop")) is NO, method
    assert await code("CreateRunToken", sign) is NO, "nor does it prolong itself"
    guarded.access.replace({}, guarded.access.run_tokens)
    assert await code("GetStatus", READS["GetStatus"](**own)) is WHO, "its granter is no more"


@pytest.mark.promise("Refusals name what is missing", "field and verb in `ErrorInfo`")
async def test_a_refusal_names_the_field_and_the_verb_that_is_missing(guarded: Guarded):
    async def details(method: str, request: Any, token: str) -> tuple[str, dict[str, str], str]:
        error = await refused(guarded.call(method, request, token))
        status = rpc_status.from_call(error)
        info = error_details_pb2.ErrorInfo()
        assert status is not None
        assert status.details[0].Unpack(info)
        return info.reason, dict(info.metadata), status.message

    denied = "PERMISSION_DENIED"
    assert await details("StartPrecompute", start("shop", "a"), "reader") == (
        denied,
        {"field": "namespace", "missing": "write"},
        "namespace: the token 'reader' lacks write in 'shop'",
    )
    assert await details("GetStats", pb.GetStatsRequest(), "wide") == (
        denied,
        {"field": "namespace", "missing": "admin"},
        "namespace: the token 'wide' lacks admin, which all namespaces at once need: name one",
    )
    reason, metadata, message = await details("GetStatus", pb.GetStatusRequest(key="a"), "stranger")
    assert (reason, metadata) == ("UNAUTHENTICATED", {})
    assert message == "the token is not one that this server accepts"


@pytest.mark.promise("Lists and counts hide other namespaces", "ranges by name")
@pytest.mark.parametrize("token", ["reader", "neighbour"])
async def test_lists_and_counts_show_nothing_of_other_namespaces(guarded: Guarded, token: str):
    await guarded.call("StartPrecompute", start("default", "waits"), "ops")
    positions = [
        f"1:{n}:{k}" for n in (*NAMESPACES, "a", "zz", "shop-") for k in ("", "a", "b", "~")
    ]
    for namespace in MAY_READ[token]:
        stats = await guarded.call("GetStats", pb.GetStatsRequest(namespace=namespace), token)
        assert stats.total_cached == len(KEYS)
        assert dict(stats.status_counts) == {"cancelled": len(KEYS)}
        # What waits in another namespace is not told; what waits in this one is.
        assert stats.queued_jobs == 0
        for position in positions:
            page = base64.urlsafe_b64encode(position.encode()).decode()
            request = pb.ListPrecomputesRequest(namespace=namespace, page_token=page)
            try:
                listed = await guarded.call("ListPrecomputes", request, token)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT  # noqa: PT017  # some are no positions
            else:
                assert {run.namespace for run in listed.precomputes} <= {namespace}
    everything = await guarded.call("GetStats", pb.GetStatsRequest(), "ops")
    assert everything.queued_jobs >= 1
    assert everything.total_cached == len(NAMESPACES) * len(KEYS) + 1


@pytest.mark.promise("Cached answers need the token", "checked before the near-cache")
async def test_an_answer_from_the_near_cache_needs_the_token_too(guarded: Guarded):
    request = pb.GetResultsRequest(namespace="shop", key="a")
    await guarded.call("GetResults", request, "reader")
    assert len(guarded.cache) == 1
    for _ in range(2):
        assert await guarded.code("GetResults", request, "reader") is OK
        assert await guarded.code("GetResults", request, "neighbour") is NO
        assert await guarded.code("GetResults", request, "stranger") is WHO
        assert await guarded.code("GetResults", request, None) is WHO


@pytest.mark.promise("A withdrawn token is refused", "the headers' cache clears")
async def test_a_token_that_is_withdrawn_is_refused_from_then_on(guarded: Guarded):
    request = pb.GetResultsRequest(namespace="shop", key="a")
    assert await guarded.code("GetResults", request, "reader") is OK
    left = tokens_of(other=("shop", "read"))
    guarded.access.replace(parsed(left.text, Path("tokens")), RunTokens())
    assert await guarded.code("GetResults", request, "reader") is WHO
    assert await code_of(guarded.call("GetResults", request, "other", left)) is OK


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("Bearer {}", OK),
        ("bearer {}", OK),
        ("{}", WHO),
        ("Basic {}", WHO),
        ("Digest {}", WHO),
        ("Bearer {}x", WHO),
        ("Bearer  {}", WHO),
        ("Bearer", WHO),
        ("", WHO),
    ],
)
async def test_only_a_whole_bearer_header_is_accepted(
    guarded: Guarded, header: str, code: grpc.StatusCode
):
    value = header.format(TOKENS.by_name["reader"])
    request = pb.GetStatusRequest(namespace="shop", key="a")
    call = guarded.stub.GetStatus(request, metadata=(("authorization", value),), timeout=10)
    assert await code_of(call) is code


@pytest.mark.promise("Reflection needs any token; health none", "the check of each method")
async def test_reflection_wants_any_token_and_health_none(guarded: Guarded):
    for token in ("stranger", None):
        asked = services(guarded.channel, TOKENS.metadata(token))
        assert (await refused(asked)).code() is WHO
    assert len(await services(guarded.channel, TOKENS.metadata("writer"))) == 3
    health = health_pb2_grpc.HealthStub(guarded.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=10)).status


@pytest.mark.promise("Calls without a token are not parsed", "checked before parsing")
@pytest.mark.parametrize(
    "method", pb.DESCRIPTOR.services_by_name["PrecomputeService"].methods_by_name
)
async def test_a_token_is_checked_before_the_request_is_parsed(guarded: Guarded, method: str):
    async def code(token: str | None) -> grpc.StatusCode:
        path = f"/headstart.v1.PrecomputeService/{method}"
        metadata = TOKENS.metadata(token)
        if method == "WatchResults":
            stream = guarded.channel.unary_stream(path)
            return await code_of(stream(b"\xff", metadata=metadata, timeout=10).read())
        return await code_of(guarded.channel.unary_unary(path)(b"\xff", metadata=metadata))

    assert await code(None) is WHO
    assert await code("stranger") is WHO
    assert await code("ops") is grpc.StatusCode.INVALID_ARGUMENT
