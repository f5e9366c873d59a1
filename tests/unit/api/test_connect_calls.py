"""Calls over HTTP, on the real port with a store that tests hold: forms, errors, limits, ends."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from google.rpc import error_details_pb2

from headstart.v1 import precompute_pb2 as pb
from headstart_service.api.call_limits import CallKind, CallLimits
from headstart_service.api.results.outgoing import Outgoing
from headstart_service.auth.grants import Grants
from headstart_service.auth.token_file import parsed
from headstart_service.base.service_methods import SERVICE
from headstart_service.domain import Status
from headstart_service.domain.errors import StoreUnavailable
from headstart_service.http.connect.bodies import MAX_REQUEST, Bodies
from headstart_service.http.connect.head import Head
from headstart_service.http.connect.query import message_of
from tests.support.tokens import tokens_of
from tests.support.waiting import wait_until
from tests.unit.api.conftest import COMPLETED, RUNNING, Api, summary_of
from tests.unit.api.connect_port import GAME, JSON, Http, Opening, opening_over

STREAM = {"content-type": "application/connect+json"}
LARGE = 8 * 1024 * 1024
"""Bytes of a message that no buffer of a connection holds."""
TOKENS = tokens_of(reader=("default", "read"), writer=("default", "write"))


@pytest.fixture
def opening(api: Api) -> Opening:
    return opening_over(api)


@pytest.fixture
async def http(opening: Opening) -> AsyncIterator[Http]:
    async with opening() as opened:
        yield opened


def head(method: str, length: int, kind: str = "application/json") -> bytes:
    lines = ("host: localhost", f"content-type: {kind}", f"content-length: {length}")
    return "\r\n".join((f"POST /{SERVICE}/{method} HTTP/1.1", *lines, "", "")).encode()


def envelope(message: bytes, flags: int = 0) -> bytes:
    return bytes((flags,)) + len(message).to_bytes(4, "big") + message


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        found.append((data[0], data[5 : 5 + size]))
        data = data[5 + size :]
    return found


def violations(error: dict[str, Any]) -> dict[str, str]:
    """The field violations of an error, from the bytes of its detail."""
    [detail] = error["details"]
    assert detail["type"] == "google.rpc.BadRequest"
    padded = detail["value"] + "=" * (-len(detail["value"]) % 4)
    told = error_details_pb2.BadRequest.FromString(base64.b64decode(padded))
    shown = {each["field"]: each["description"] for each in detail["debug"]["fieldViolations"]}
    assert shown == {each.field: each.description for each in told.field_violations}
    return shown


@pytest.mark.parametrize(
    "headers",
    [
        JSON,
        {"content-type": "application/json; charset=utf-8"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": ""},
        JSON | {"connect-protocol-version": "1", "connect-timeout-ms": "5000"},
        JSON | {"content-encoding": "identity"},
    ],
)
async def test_a_call_is_json_with_every_type_that_curl_sends(
    http: Http, headers: dict[str, str]
) -> None:
    answer = await http.post("GetStatus", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["steps"] == dict.fromkeys(("one", "two", "three"), "STEP_STATE_PENDING")
    assert http.seen.calls == [("GetStatus", "OK")]


async def test_a_call_is_answered_in_protobuf(http: Http) -> None:
    request = pb.GetResultsRequest(key="game-1").SerializeToString()
    answer = await http.post("GetResults", request, {"content-type": "application/proto"})
    assert answer.headers["content-type"] == "application/proto"
    assert pb.GetResultsResponse.FromString(answer.content).key == "game-1"


async def test_a_request_gets_every_violation_by_its_path(http: Http) -> None:
    body = {"key": 5, "bridging": {"clueCount": "x", "size": 1}, "requestId": None}
    answer = await http.post("StartPrecompute", json.dumps(body).encode())
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
    assert list(violations(answer.json())) == ["key", "bridging.clue_count", "bridging.size"]
    answer = await http.post("StartPrecompute", b'{"key":"","bridging":{"anchor":"a"}}')
    assert {"key", "bridging.target"} <= set(violations(answer.json()))
    assert http.seen.calls == [("StartPrecompute", "INVALID_ARGUMENT")] * 2


@pytest.mark.parametrize(
    ("method", "body", "headers", "status", "code", "text"),
    [
        ("Nothing", GAME, JSON, 404, "unimplemented", "has no method 'Nothing'"),
        ("", GAME, JSON, 404, "unimplemented", "it has StartPrecompute"),
        ("GetStatus", GAME, {"content-type": "text/plain"}, 415, "unimplemented", "text/plain"),
        (
            "GetStatus",
            GAME,
            {"content-type": "application/json; charset=latin-1"},
            415,
            "unimplemented",
            "charset",
        ),
        ("GetStatus", GAME, STREAM, 415, "unimplemented", "must be one of application/json"),
        ("WatchResults", GAME, JSON, 415, "unimplemented", "application/connect+json"),
        ("GetStatus", GAME, JSON | {"content-encoding": "gzip"}, 501, "unimplemented", "gzip"),
        ("GetStatus", GAME, JSON | {"connect-protocol-version": "2"}, 400, "invalid_argument", "1"),
        ("GetStatus", GAME, JSON | {"connect-timeout-ms": "1s"}, 400, "invalid_argument", "digits"),
        (
            "GetStatus",
            GAME,
            JSON | {"connect-timeout-ms": "12345678901"},
            400,
            "invalid_argument",
            "1 to 10",
        ),
        ("GetStatus", b"", JSON, 400, "invalid_argument", "must be JSON"),
        ("GetStatus", b'{"key":', JSON, 400, "invalid_argument", "line 1 column 8"),
        ("GetStatus", b"[]", JSON, 400, "invalid_argument", "must be a JSON object, is a list"),
        ("GetStatus", b'{"key":"\xff"}', JSON, 400, "invalid_argument", "UTF-8"),
        ("GetStatus", b'{"key":"a","key":"b"}', JSON, 400, "invalid_argument", "twice"),
        ("GetStatus", b"[" * 100_000, JSON, 400, "invalid_argument", "nest at most 100"),
        (
            "GetStatus",
            b"\xff\xff",
            {"content-type": "application/proto"},
            400,
            "invalid_argument",
            "must be a serialized headstart.v1.GetStatusRequest",
        ),
        ("GetStatus", b" " * (MAX_REQUEST + 1), JSON, 413, "resource_exhausted", "4194304"),
        ("GetStatus", b" " * (2 * MAX_REQUEST), JSON, 413, "resource_exhausted", "4194304"),
    ],
)
async def test_bad_input_is_a_clear_error(
    http: Http,
    method: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
    code: str,
    text: str,
) -> None:
    answer = await http.post(method, body, headers)
    error = answer.json()
    assert (answer.status_code, error["code"]) == (status, code)
    assert text in error["message"]
    assert (await http.post("GetStatus")).status_code == 200  # on the same connection, if it lives


async def test_other_verbs_are_refused(http: Http) -> None:
    for verb in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = await http.client.request(verb, f"/{SERVICE}/GetStatus")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST, GET")
    answer = await http.get("StartPrecompute", "encoding=json&message=%7B%7D")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "query",
    [
        "connect=v1&encoding=json&message=%7B%22key%22%3A%22game-1%22%7D",
        "encoding=json&base64=1&message=eyJrZXkiOiJnYW1lLTEifQ",
        "encoding=json&base64=1&message=eyJrZXkiOiJnYW1lLTEifQ==",
        "encoding=proto&base64=1&message="
        + base64.urlsafe_b64encode(pb.GetStatusRequest(key="game-1").SerializeToString()).decode(),
    ],
)
async def test_a_read_is_sent_by_get(http: Http, query: str) -> None:
    answer = await http.get("GetStatus", query)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    if "json" in query:
        assert answer.json()["key"] == "game-1"
    else:
        assert pb.GetStatusResponse.FromString(answer.content).key == "game-1"


def test_a_get_holds_text_and_bytes_of_any_kind() -> None:
    text = '{"key":"été-游戏"}'.encode()
    for data in (text, bytes(range(256))):
        for query in (f"message={quote(data)}", f"encoding=json&message={quote_plus(data)}"):
            assert message_of(Head("GET", {}, query.encode(), ("", 0))) == ("json", data)
    assert message_of(Head("GET", {}, b"message=" + text, ("", 0))) == ("json", text)


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("connect=v2&message=%7B%7D", 400, "connect: must be v1"),
        ("encoding=xml&message=%7B%7D", 415, "encoding: must be one of json, proto"),
        ("compression=gzip&message=%7B%7D", 501, "compression"),
        ("base64=1&message=%21%21", 400, "base 64"),
        ("base64=1&message=A", 400, "base 64"),
        ("base64=yes&message=%7B%7D", 400, "base64: must be 1"),
        ("message=%7B%7D&message=%7B%7D", 400, "message: must be given once"),
        ("message", 400, "query: must be parameters"),
        ("", 400, "key: must"),
    ],
)
async def test_a_bad_query_is_a_clear_error(http: Http, query: str, status: int, text: str) -> None:
    answer = await http.get("GetStatus", query)
    assert answer.status_code == status
    assert text in answer.json()["message"]


async def test_a_wait_ends_before_the_callers_timeout(http: Http, api: Api) -> None:
    headers = JSON | {"connect-timeout-ms": "1000"}
    answer = await http.post("GetResults", b'{"key":"game-1","wait":"20s"}', headers)
    assert (answer.status_code, answer.json()["status"]) == (200, "PRECOMPUTE_STATUS_IN_PROGRESS")
    api.store.gate.clear()
    answer = await http.post("GetStatus", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    api.store.gate.set()
    assert http.seen.calls == [("GetResults", "OK"), ("GetStatus", "DEADLINE_EXCEEDED")]


async def test_an_expired_timeout_does_nothing(http: Http, api: Api) -> None:
    answer = await http.post("GetStatus", headers=JSON | {"connect-timeout-ms": "0"})
    assert answer.json()["code"] == "deadline_exceeded"
    assert not api.store.asked("status")


@pytest.mark.promise("Calls over HTTP obey the token, before their body is read", "`auth/grants`")
async def test_tokens_are_checked_before_the_body(opening: Opening) -> None:
    grants = Grants(parsed(TOKENS.text, None))  # type: ignore[arg-type]
    async with opening(grants=grants) as http:
        async with http.listening() as (reader, writer):
            writer.write(head("GetStatus", 100))
            assert b"401 Unauthorized" in await reader.readline()
        answer = await http.post("GetStatus", headers=JSON | {"authorization": "Bearer x"})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
        for name, status in (("reader", 200), ("writer", 403)):
            bearer = {"authorization": f"Bearer {TOKENS.by_name[name]}"}
            answer = await http.post("GetStatus", headers=JSON | bearer)
            assert answer.status_code == status
        [detail] = answer.json()["details"]
        assert detail["debug"]["reason"] == "PERMISSION_DENIED"
        assert detail["debug"]["metadata"] == {"field": "namespace", "missing": "read"}


async def test_a_call_beyond_the_limit_gets_a_delay(opening: Opening) -> None:
    async with opening(limits=CallLimits(calls=0, watches=0)) as http:
        answer = await http.post("GetStatus")
        assert (answer.status_code, answer.json()["code"]) == (429, "resource_exhausted")
        assert answer.headers["retry-after"] in ("1", "2")
        [detail] = answer.json()["details"]
        assert detail["type"] == "google.rpc.RetryInfo"
        answer = await http.post("WatchResults", envelope(GAME), STREAM)
        [(flags, end)] = frames(answer.content)
        assert (flags, json.loads(end)["error"]["code"]) == (2, "resource_exhausted")


async def test_a_ready_result_needs_no_place(opening: Opening, api: Api) -> None:
    api.store.now(Status.COMPLETED, one=COMPLETED, two=COMPLETED, three=COMPLETED)
    async with opening(limits=CallLimits(waiters=1)) as http:
        first = await http.post("GetResults")
        with http.limits.by_kind[CallKind.WAIT]:
            second = await http.post("GetResults")
    assert first.json() == second.json()
    assert http.seen.readies == [True]
    assert http.seen.calls == [("GetResults", "OK")]


async def test_an_outage_and_a_mistake_show_nothing_of_themselves(http: Http, api: Api) -> None:
    api.store.error = StoreUnavailable("redis://secret")
    answer = await http.post("GetStatus")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["message"] == "the store is unavailable"
    api.store.error = ValueError("secret")
    answer = await http.post("GetStatus")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert http.seen.calls[-1] == ("GetStatus", "INTERNAL")


async def test_a_caller_that_leaves_ends_its_call(http: Http, api: Api) -> None:
    body = b'{"key":"game-1","wait":"20s"}'
    for method, sent, kind in (
        ("GetResults", body, "application/json"),
        ("WatchResults", envelope(GAME), "application/connect+json"),
    ):
        async with http.listening() as (_, writer):
            writer.write(head(method, len(sent), kind) + sent)
            await api.parked()
        await wait_until(lambda: api.waiting.waiters == 0)
        await wait_until(lambda: http.seen.calls[-1:] == [(method, "CANCELLED")])  # noqa: B023
    assert not any(limit.inside for limit in http.limits.by_kind.values())


async def test_a_body_that_does_not_come_is_given_up(opening: Opening) -> None:
    async with opening(bodies=Bodies(within=0.05)) as http, http.listening() as connection:
        reader, writer = connection
        writer.write(head("GetStatus", 9))
        assert b"408 Request Timeout" in await reader.readline()


async def test_bodies_together_hold_a_bounded_number_of_bytes(opening: Opening) -> None:
    bodies = Bodies(limit=20)
    async with opening(bodies=bodies) as http:
        assert (await http.post("GetStatus", GAME)).status_code == 200
        answer = await http.post("GetStatus", GAME + b" " * 20)
        assert (answer.status_code, answer.json()["code"]) == (429, "resource_exhausted")
        assert bodies.held == 0


async def test_a_stream_sends_each_change_and_then_its_end(http: Http, api: Api) -> None:
    api.store.now(one=RUNNING)
    watching = asyncio.create_task(http.post("WatchResults", envelope(GAME), STREAM))
    await api.parked()
    api.store.end("one")
    await api.parked()
    api.store.end("two", "three")
    answer = await watching
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/connect+json"
    *messages, end = frames(answer.content)
    assert end == (2, b"{}")
    assert {flags for flags, _ in messages} == {0}
    states = [json.loads(data)["results"]["steps"]["one"]["state"] for _, data in messages]
    assert (states[0], states[-1]) == ("STEP_STATE_RUNNING", "STEP_STATE_COMPLETED")
    assert json.loads(messages[-1][1])["results"]["status"] == "PRECOMPUTE_STATUS_COMPLETED"
    assert http.seen.calls == [("WatchResults", "OK")]


async def test_a_stream_is_sent_in_protobuf(http: Http, api: Api) -> None:
    api.store.now(Status.COMPLETED, one=COMPLETED, two=COMPLETED, three=COMPLETED)
    request = envelope(pb.WatchResultsRequest(key="game-1").SerializeToString())
    headers = {"content-type": "application/connect+proto"}
    answer = await http.post("WatchResults", request, headers)
    [(_, message), end] = frames(answer.content)
    assert pb.WatchResultsResponse.FromString(message).results.revision == 1
    assert end == (2, b"{}")


@pytest.mark.parametrize(
    ("body", "headers", "code", "text"),
    [
        (b"", {}, "invalid_argument", "must be one envelope"),
        (b'{"key":"game-1"}', {}, "invalid_argument", "not JSON alone"),
        (envelope(GAME)[:-1], {}, "invalid_argument", "must have 16 bytes"),
        (envelope(GAME) * 2, {}, "invalid_argument", "has more behind it"),
        (envelope(GAME, 2), {}, "invalid_argument", "flags 0"),
        (envelope(GAME, 1), {}, "internal", "compressed"),
        (b"\0\xff\xff\xff\xff", {}, "resource_exhausted", "4194304"),
        (envelope(b'{"key":3}'), {}, "invalid_argument", "key: must be text, is 3"),
        (envelope(b'{"key":"\\u0000"}'), {}, "invalid_argument", "key: must"),
        (envelope(GAME), {"connect-content-encoding": "gzip"}, "unimplemented", "gzip"),
        (envelope(GAME), {"connect-timeout-ms": "x"}, "invalid_argument", "digits"),
        (envelope(b'{"key":"other"}'), {}, "not_found", "other"),
    ],
)
async def test_a_streams_error_is_in_its_end(
    http: Http, api: Api, body: bytes, headers: dict[str, str], code: str, text: str
) -> None:
    if code == "not_found":
        api.store.snapshot = None
    answer = await http.post("WatchResults", body, STREAM | headers)
    assert answer.status_code == 200
    [(flags, end)] = frames(answer.content)
    error = json.loads(end)["error"]
    assert (flags, error["code"]) == (2, code)
    assert text in error["message"]


async def test_a_stream_that_outlives_its_timeout_ends_with_an_error(http: Http) -> None:
    headers = STREAM | {"connect-timeout-ms": "150"}
    answer = await http.post("WatchResults", envelope(GAME), headers)
    *_, (flags, end) = frames(answer.content)
    assert (flags, json.loads(end)["error"]["code"]) == (2, "deadline_exceeded")


async def test_a_process_that_stops_refuses_new_calls_and_ends_old_ones(
    http: Http, api: Api
) -> None:
    api.store.gate.clear()
    held = asyncio.create_task(http.post("GetStatus"))
    await wait_until(lambda: api.store.reading == 1)
    draining = asyncio.create_task(http.service.drain(0.1))
    await asyncio.sleep(0)
    refused = await http.post("GetStatus")
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert (await held).json() == {"code": "unavailable", "message": "the server is stopping"}
    await draining
    api.store.gate.set()


async def test_the_port_describes_its_calls(http: Http) -> None:
    answer = await http.client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert f"/{SERVICE}/GetResults" in answer.json()["paths"]


async def test_a_caller_that_reads_nothing_holds_back_its_own_stream(
    opening: Opening, api: Api
) -> None:
    class Counted(Outgoing):
        sent = 0

        def sending(self, data: bytes, context: Any) -> Any:
            self.sent += 1
            return super().sending(data, context)

    outgoing = Counted()

    def grow(revision: int) -> None:
        summary = summary_of(revision=revision)
        summary = replace(summary, error="x" * LARGE)
        assert api.store.snapshot is not None
        api.store.snapshot = replace(api.store.snapshot, summary=summary)
        api.wire.say("step", "one")

    grow(1)
    async with opening(outgoing=outgoing) as http, http.listening() as (reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        body = envelope(GAME)
        writer.write(head("WatchResults", len(body), "application/connect+json") + body)
        await wait_until(lambda: outgoing.held > LARGE)
        for revision in range(2, 12):
            grow(revision)
            await api.parked()
        assert outgoing.sent == 1, "the other messages wait for the first one"
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        reader.feed_eof()
        writer.transport.abort()
        await wait_until(lambda: not outgoing.held)


async def test_each_start_of_a_batch_needs_its_own_grant(opening: Opening) -> None:
    grants = Grants(parsed(TOKENS.text, None))  # type: ignore[arg-type]
    custom = {"pipeline": "test"}
    starts = [{"namespace": name, "key": "k", "custom": custom} for name in ("default", "other")]
    async with opening(grants=grants) as http:
        bearer = {"authorization": f"Bearer {TOKENS.by_name['writer']}"}
        body = json.dumps({"requests": starts}).encode()
        answer = await http.post("BatchStartPrecomputes", body, JSON | bearer)
    assert answer.status_code == 200, answer.text
    mine, foreign = answer.json()["results"]
    assert mine["response"]["outcome"] == "START_OUTCOME_STARTED"
    assert "lacks write in 'other'" in foreign["error"]["message"]


async def test_many_runs_are_watched_on_one_stream(http: Http, api: Api) -> None:
    api.store.now(Status.COMPLETED, one=COMPLETED, two=COMPLETED, three=COMPLETED)
    body = envelope(b'{"keys":["game-1","game-2"]}')
    answer = await http.post("WatchResults", body, STREAM)
    *messages, end = frames(answer.content)
    assert end == (2, b"{}")
    assert len(messages) == 2
