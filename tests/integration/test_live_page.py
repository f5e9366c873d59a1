"""The live page's answers on a real server: who gets what, and what no other site can do."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest

from headstart import PrecomputeClient
from headstart_service.dashboard.event_streams import MAX_STREAMS
from tests.support.pipelines import REFERENCES
from tests.support.prefix_proxy import prefix_proxy
from tests.support.processes import Process, api, serving
from tests.support.tokens import Tokens, tokens_of
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until

LIGHT = {"HEADSTART_BRIDGING": "false", "HEADSTART_PIPELINES": REFERENCES}
TOKENS = tokens_of(
    reader=("shop", "read"),
    writer=("shop", "write"),
    both=("shop", "read,write"),
    wide=("*", "read"),
    ops=("*", "admin"),
)
JSON = {"Content-Type": "application/json", "X-Headstart": "1"}


class Port:
    """Asks an HTTP port; each time on a connection of its own."""

    def __init__(self, host: str) -> None:
        self.host = host

    async def ask(
        self, path: str, token: str | None = None, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        return await asyncio.to_thread(self._ask, path, token, body, headers)

    def _ask(
        self, path: str, token: str | None, body: Any, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection(self.host, timeout=20)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {TOKENS.by_name.get(token, token)}"
        data = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data, sent)
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        if told.get("content-type") == "text/event-stream":
            text = ""
            while not text.endswith("\n\n"):
                text += answer.readline().decode() or "\n\n"
        else:
            text = answer.read().decode()
        connection.close()
        return answer.status, told, text


def tick(text: str) -> dict[str, Any]:
    """The first event of a stream."""
    told: dict[str, Any] = json.loads(text.partition("data: ")[2])
    return told


async def port_of(process: Process) -> Port:
    return Port((await process.says(r"live page on http://(\S+)/"))[1])


async def started(address: str, tokens: Tokens | None, *keys: tuple[str, str]) -> None:
    token = tokens.by_name["ops"] if tokens else None
    async with PrecomputeClient(address, token=token) as client:
        for namespace, key in keys:
            await client.start(key, "noop", {}, namespace=namespace)


@pytest.fixture
async def open_port(valkey: Valkey) -> AsyncIterator[tuple[Port, str]]:
    async with api(valkey.url, **LIGHT) as (process, address):
        yield await port_of(process), address


@pytest.mark.promise("The live page obeys the token", "`dashboard/access`")
async def test_each_token_sees_and_cancels_what_it_may_and_no_more(valkey: Valkey, tmp_path: Path):
    path = str(TOKENS.written(tmp_path / "tokens"))
    async with api(valkey.url, HEADSTART_TOKENS=path, **LIGHT) as (process, address):
        port = await port_of(process)
        await started(address, TOKENS, ("shop", "mine"), ("other", "theirs"))
        mine, theirs = "/api/run?namespace=shop&key=mine", "/api/run?namespace=other&key=theirs"
        seen = {
            token: [(await port.ask(each, token))[0] for each in (mine, theirs)]
            for token in (None, "wrong", "reader", "writer", "both", "wide", "ops")
        }
        assert seen == {
            None: [401, 401],
            "wrong": [401, 401],
            "reader": [200, 403],
            "writer": [403, 403],
            "both": [200, 403],
            "wide": [200, 200],
            "ops": [200, 200],
        }
        whole = {}
        for token in ("reader", "writer", "wide", "ops"):
            code, _, text = await port.ask("/api/events", token)
            whole[token] = code
            assert "theirs" not in text or token == "ops"
        assert whole == {"reader": 200, "writer": 403, "wide": 403, "ops": 200}

        async def seen_live() -> bool:  # it is told by an announcement
            told = tick((await port.ask("/api/events", "ops"))[2])
            return len(told["live"]) == 2

        await wait_until(seen_live)
        told = tick((await port.ask("/api/events", "reader"))[2])
        assert [run["key"] for run in told["live"]] == ["mine"]
        assert told["namespaces"] == ["shop"]
        assert (told["counts"], told["queued"]) == ({"pending": 1}, 1)
        assert not {"workers", "process", "calls"} & set(told)
        told = tick((await port.ask("/api/events?namespace=other", "wide"))[2])
        assert [run["key"] for run in told["live"]] == ["theirs"]
        everything = tick((await port.ask("/api/events", "ops"))[2])
        assert len(everything["live"]) == 2
        for token, code in (("reader", 403), (None, 401), ("writer", 200)):
            run = {"namespace": "shop", "key": "mine"}
            assert (await port.ask("/api/cancel", token, run, **JSON))[0] == code
        code, _, _ = await port.ask(
            "/api/cancel", "both", {"namespace": "other", "key": "x"}, **JSON
        )
        assert code == 403, "whether the key exists or not"
        said = r"shop/mine revision 1 cancelled on the live page by the token 'writer'"
        await process.says(said)
        await port.ask("/api/cancel", "writer", {"namespace": "shop", "key": "mine"}, **JSON)
        assert len(re.findall(said, process.output)) == 1, "it had been cancelled already"
        assert not any(secret in process.output for secret in TOKENS.by_name.values())


@pytest.mark.promise("Other sites cannot read or cancel", "`Host`, `Sec-Fetch-Site`, own header")
async def test_no_other_site_can_look_or_cancel(open_port: tuple[Port, str]):
    port, address = open_port
    await started(address, None, ("default", "k"))
    run = {"namespace": "default", "key": "k"}
    for path in ("/api/events", "/api/run?namespace=default&key=k"):
        assert (await port.ask(path, Host="evil.example"))[0] == 403
        assert (await port.ask(path, Sec_Fetch_Site="cross-site"))[0] == 403
        assert (await port.ask(path, Host=f"localhost:{port.host.rpartition(':')[2]}"))[0] == 200
    for refused in (
        {"Content-Type": "text/plain", "X-Headstart": "1"},
        {"Content-Type": "application/json"},
        {**JSON, "Host": "evil.example"},
        {**JSON, "Sec-Fetch-Site": "same-site"},
    ):
        assert (await port.ask("/api/cancel", None, run, **refused))[0] in (400, 403)
    for wrong in (
        [],
        {"key": 1},
        {"namespace": "default", "key": "\ud800"},
        {"key": "x" * 5000},
        {**run, "revision": "1"},
        {**run, "revision": -1},
    ):
        assert (await port.ask("/api/cancel", None, wrong, **JSON))[0] == 400
    assert json.loads((await port.ask("/api/run?namespace=default&key=k"))[2])["run"]["status"] == (
        "pending"
    )
    stale = await port.ask("/api/cancel", None, {**run, "revision": 9}, **JSON)
    assert json.loads(stale[2]) == {"cancelled": False, "status": "pending"}
    assert (await port.ask("/api/cancel", None, {**run, "revision": 1}, **JSON))[0] == 200
    assert (await port.ask("/api/cancel", None, {**run, "key": "none"}, **JSON))[0] == 404


@pytest.mark.promise("The page is neither cached nor framed", "response headers")
async def test_every_answer_is_kept_from_caches_frames_and_foreign_code(
    open_port: tuple[Port, str],
):
    port, _ = open_port
    for path in ("/", "/static/main.js", "/static/none", "/api/events", "/api/run"):
        _, headers, text = await port.ask(path)
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "access-control-allow-origin" not in headers
        assert "http://" not in text or "w3.org" in text


async def test_no_page_names_a_path_from_the_root_of_its_host(open_port: tuple[Port, str]):
    port, _ = open_port
    asked, read = ["index.html"], dict[str, str]()
    while asked:
        name = asked.pop()
        path = "/" if name == "index.html" else f"/static/{name}"
        code, headers, text = await port.ask(path)
        assert (code, "location" in headers, "set-cookie" in headers) == (200, False, False), name
        read[name] = text
        linked = re.findall(r"""["'](?:\./|static/)([\w.-]+)["']""", text)
        asked += [each for each in linked if each not in read and each not in asked]
        for form in (r"""["'`(]/(?=[\w/$])[^"'`)\s]*""", r"location\.(?:host|origin)", "<base"):
            assert re.findall(form, text) == [], name
    assert {"main.js", "detail.js", "feed.js", "style.css", "icon.svg"} <= read.keys()


async def test_the_page_is_whole_under_a_path_of_a_proxy(open_port: tuple[Port, str]):
    port, address = open_port
    await started(address, None, ("default", "k"))
    with prefix_proxy(f"http://{port.host}/") as proxy:
        behind, path = Port(urlsplit(proxy.url).netloc), urlsplit(proxy.url).path
        code, _, page = await behind.ask(path)
        assert code == 200
        for link in re.findall(r'(?:href|src)="([^"#]+)"', page):
            assert (await behind.ask(urlsplit(urljoin(proxy.url, link)).path))[0] == 200, link
        assert tick((await behind.ask(f"{path}api/events"))[2])
        run = {"namespace": "default", "key": "k"}
        assert (await behind.ask(f"{path}api/run?namespace=default&key=k"))[0] == 200
        assert (await behind.ask(f"{path}api/cancel", None, run, **JSON))[0] == 200
        assert proxy.outside == []


async def test_so_many_pages_and_no_more(open_port: tuple[Port, str]):
    port, _ = open_port
    connections = []
    for _ in range(MAX_STREAMS):
        connection = http.client.HTTPConnection(port.host, timeout=20)
        connection.request("GET", "/api/events")
        assert connection.getresponse().status == 200
        connections.append(connection)
    assert (await port.ask("/api/events"))[0] == 503
    for connection in connections:
        connection.close()

    async def free() -> bool:
        return (await port.ask("/api/events"))[0] == 200

    await wait_until(free)


async def test_it_can_be_turned_off(valkey: Valkey):
    settings = {**LIGHT, "HEADSTART_REDIS_URL": valkey.url, "HEADSTART_DASHBOARD": "false"}
    async with serving("--no-worker", **settings) as (process, _):
        port = Port((await process.says(r"HTTP on (\S+)"))[1])
        for path in ("/", "/static/main.js", "/api/events", "/api/run"):
            assert (await port.ask(path))[0] == 404
        assert "live page" not in process.output
