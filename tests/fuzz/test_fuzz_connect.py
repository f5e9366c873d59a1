"""HTTP requests to all methods of a real server, with JSON, protobuf, envelopes and queries."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any, Final
from urllib.parse import quote_from_bytes

import httpx2
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass

from headstart_service.http.connect.errors import CODES
from tests.fuzz import budget
from tests.fuzz.messages import seeds
from tests.fuzz.victim import METHODS, PATIENCE, Victim
from tests.fuzz.wire import mutated
from tests.support.processes import SERVICE

_TOGETHER = 20
_NAMES: Final = {name for name, _ in CODES.values()}
_UNARY = ("application/json", "application/proto", "", "application/x-www-form-urlencoded")
_STREAM = ("application/connect+json", "application/connect+proto")
_ODD: list[Any] = [
    *(None, True, -1, 0, 1.5, 1e400, 2**63, 10**30, "", "x", "5s", "-5s", "1e3", "NaN", [], {}),
    *([[]], [None], {"": 1}, {"a": {"a": {}}}, "\ud800", "\u0000", "A" * 3, "=", ["x"] * 1001),
]
_HEADERS: Final = {
    "connect-timeout-ms": ("1", "0", "100", "-1", "1e3", "99999999999", ""),
    "connect-protocol-version": ("1", "2", ""),
    "content-encoding": ("identity", "gzip", "br"),
    "connect-content-encoding": ("identity", "gzip"),
}
Request = tuple[str, str, dict[str, str], bytes]


def _changed(value: Any, dice: random.Random) -> Any:
    """A JSON value, of which a part is another."""
    if dice.random() < 0.25:
        return dice.choice(_ODD)
    if isinstance(value, dict) and value:
        name = dice.choice(list(value))
        new = dice.choice([name, name, name, name.upper(), "unknown"])
        return {**value, new: _changed(value[name], dice)}
    if isinstance(value, list) and value:
        place = dice.randrange(len(value))
        return [*value[:place], _changed(value[place], dice), *value[place + 1 :]]
    return dice.choice(_ODD)


def _request(dice: random.Random) -> Request:
    method, data = dice.choice(seeds())
    streams = METHODS[method].server_streaming
    kind = dice.choice(_STREAM if streams else _UNARY)
    if "proto" not in kind:
        message = GetMessageClass(METHODS[method].input_type).FromString(data)
        value = MessageToDict(message)
        if dice.random() < 0.7:
            value = _changed(value, dice)
        data = json.dumps(value).encode()
    if dice.random() < 0.5:
        data = mutated(data, dice)
    if streams:
        data = bytes(1) + len(data).to_bytes(4, "big") + data
        if dice.random() < 0.3:
            data = mutated(data, dice)
    headers = {"content-type": kind} if kind else {}
    if dice.random() < 0.2:
        name = dice.choice(list(_HEADERS))
        headers[name] = dice.choice(_HEADERS[name])
    if streams:
        headers.setdefault("connect-timeout-ms", "300")
    if dice.random() < 0.1 and not streams:
        query = quote_from_bytes(data, safe="" if dice.random() < 0.7 else "&=%")[:8000]
        form = dice.choice(("json", "proto", "xml"))
        return "GET", f"{method}?encoding={form}&message={query}", headers, b""
    return "POST", method, headers, data


def _check(answer: httpx2.Response) -> None:
    """Fail for an answer that no caller's mistake may get."""
    assert answer.status_code != 500, answer.text
    error: dict[str, Any] = {}
    if answer.headers["content-type"] in _STREAM:
        size = int.from_bytes(answer.content[1:5], "big")
        if answer.content[0] == 2:
            error = json.loads(answer.content[5 : 5 + size]).get("error", {})
    elif answer.status_code != 200:
        error = answer.json()
    if error:
        assert error["code"] in _NAMES - {"unknown", "data_loss"}, error
        assert error["message"]
        assert "Traceback" not in error["message"]


@pytest.mark.promise("Any HTTP body gets a clear error", "checked by path")
def test_any_http_call_is_answered_clearly(victim: Victim):
    dice = budget.dice("connect")

    async def send(requests: list[Request]) -> None:
        url = f"http://127.0.0.1:{victim.http_port}/{SERVICE}/"
        async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE) as client:

            async def one(verb: str, path: str, headers: dict[str, str], body: bytes) -> None:
                answer = await client.request(verb, path, headers=headers, content=body)
                try:
                    _check(answer)
                except Exception as error:
                    raise AssertionError(f"{verb} {path} {headers} {body!r}") from error

            await asyncio.gather(*(one(*request) for request in requests))

    left = budget.cases(100, 12_000)
    while left > 0:
        requests = [_request(dice) for _ in range(min(left, _TOGETHER))]
        victim.run(send(requests))
        budget.count("HTTP calls", len(requests))
        left -= len(requests)
    victim.is_well()
