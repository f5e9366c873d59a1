"""The live page's routes and the task that feeds it, without a server."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from starlette.applications import Starlette

from headstart.v1 import precompute_pb2 as pb
from headstart_service.auth.grants import EVERYTHING, Grant, Verb
from headstart_service.dashboard import routes
from headstart_service.dashboard.access import Door, View
from headstart_service.dashboard.routes import Dashboard, Rules
from headstart_service.domain import (
    Announcement,
    EventKind,
    PartialForm,
    PartialPiece,
    RunKey,
    RunSummary,
    Status,
    StepState,
)
from headstart_service.domain.errors import (
    CapacityExhausted,
    InvalidRequest,
    PermissionDenied,
    RecordDamaged,
    RunNotFound,
    StoreUnavailable,
    Unauthenticated,
    Violation,
)
from headstart_service.pipeline.registry import Registry
from tests.support.pipelines import NOOP, PROBE
from tests.support.run_store import FakeRunStore
from tests.support.virtual_time import run_virtually
from tests.support.waiting import wait_until

KEY = RunKey("shop", "k")
JSON = {"content-type": "application/json; charset=utf-8", "x-headstart": "1"}


def run(status: Status) -> RunSummary:
    return RunSummary(KEY, "probe", 1, status, 1, 2, 0, 99, "")


def store_of_one_run() -> FakeRunStore:
    made = FakeRunStore(run(Status.IN_PROGRESS))
    results = pb.CustomResults(artifacts={"first": pb.Artifact(data=b"\x01")})
    made.bodies[KEY] = pb.GetResultsResponse(custom=results).SerializeToString()
    made.lives_for = 12.5
    return made


class Page:
    """The page of a process, asked by ASGI."""

    def __init__(self, *, tokens: bool = False) -> None:
        self.runs = store_of_one_run()
        self.viewer: Any = EVERYTHING
        self.headers: list[str | None] = []
        door = Door(host="127.0.0.1", tokens=tokens, open=True)
        rules = Rules(door=door, about={"host": "h"})
        registry = Registry([PROBE, NOOP])
        self.outdated: list[RunKey] = []
        self.dashboard = Dashboard(self.runs, registry, self._admit, rules, self.outdated.append)
        self.app = Starlette(routes=self.dashboard.routes())

    def _admit(self, header: str | None) -> Any:
        self.headers.append(header)
        if isinstance(self.viewer, Exception):
            raise self.viewer
        return self.viewer

    async def ask(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        path, _, query = path.partition("?")
        sent = {"host": "localhost"} | (headers or {})
        scope = {
            "type": "http",
            "method": "GET" if body is None else "POST",
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 1),
        }
        status, told, answer = 0, {}, b""

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body or b"", "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status, told, answer
            if message["type"] == "http.response.start":
                status = message["status"]
                told = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answer += message["body"]

        await self.app(scope, receive, send)
        return status, told, answer

    async def code(self, path: str, body: Any = None, **headers: str) -> int:
        data = None if body is None else json.dumps(body).encode()
        return (await self.ask(path, data, headers))[0]


@pytest.fixture
def page() -> Page:
    return Page()


async def test_a_run_is_answered_with_what_its_steps_have_given_and_report_so_far(
    page: Page,
) -> None:
    page.runs.states[KEY] = {"first": StepState.RUNNING, "gated": StepState.COMPLETED}
    progress = pb.StepProgress(fraction=0.5, message="half")
    running = pb.StepReport(state=pb.STEP_STATE_RUNNING, progress=progress)
    page.runs.bodies[KEY] = pb.GetResultsResponse(steps={"first": running}).SerializeToString()
    page.runs.partials[KEY] = [
        PartialPiece("first", PartialForm.TEXT, 7, 90, b"and so on", 99),
        PartialPiece("gated", PartialForm.TEXT, 7, 0, b"its value has it", 16),
    ]
    told = json.loads((await page.ask("/api/run?namespace=shop&key=k"))[2])
    text = {"kind": "growing", "text": "and so on", "clipped": True, "failed": False}
    assert told["values"] == [{"step": "first", "name": "first"} | text]
    assert told["run"]["steps"][0]["progress"] == {"fraction": 0.5, "message": "half"}

    async def shown(form: PartialForm, data: bytes) -> str:
        page.runs.partials[KEY] = [PartialPiece("first", form, 7, 90, data, 99)]
        answer = json.loads((await page.ask("/api/run?namespace=shop&key=k"))[2])
        return str(answer["values"][0]["text"])

    assert await shown(PartialForm.TEXT, "\N{GRINNING FACE} so".encode()[1:]) == " so"
    assert await shown(PartialForm.LINES, b'":1}\n{"b":2}\n') == '{"b":2}\n'
    assert await shown(PartialForm.LINES, b'one that is longer"}\n') == 'one that is longer"}\n'
    page.runs.partials[KEY] = []
    assert json.loads((await page.ask("/api/run?namespace=shop&key=k"))[2])["values"] == []


async def test_a_run_is_answered_with_its_values_and_whether_it_may_be_cancelled(
    page: Page,
) -> None:
    code, headers, body = await page.ask(
        "/api/run?namespace=shop&key=k", headers={"authorization": "Bearer t"}
    )
    told = json.loads(body)
    assert (code, headers["cache-control"]) == (200, "no-store")
    assert page.headers == ["Bearer t"]
    assert (told["run"]["key"], told["lives_for"], told["may_cancel"]) == ("k", 12.5, True)
    assert told["values"] == [
        {"step": "first", "name": "first", "kind": "bytes", "length": 1, "head": "01"}
    ]
    page.viewer = Grant("t", frozenset({"shop"}), frozenset({Verb.READ}))
    assert not json.loads((await page.ask("/api/run?namespace=shop&key=k"))[2])["may_cancel"]
    assert await page.code("/api/run?namespace=other&key=k") == 403
    page.viewer = EVERYTHING
    page.runs.runs[KEY] = run(Status.COMPLETED)
    assert not json.loads((await page.ask("/api/run?namespace=shop&key=k"))[2])["may_cancel"]
    for wrong in ("", "?namespace=shop", "?namespace=Shop!&key=k", "?namespace=shop&key="):
        assert await page.code(f"/api/run{wrong}") == 400


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InvalidRequest([Violation("key", "must be a text")]), 400, "must be a text"),
        (Unauthenticated("who"), 401, "who"),
        (PermissionDenied("f", "rule", "read"), 403, "f: rule"),
        (RunNotFound("shop", "k"), 404, "k"),
        (RecordDamaged("shop/k"), 500, "shop/k"),
        (CapacityExhausted("full", 1.0), 503, "full"),
        (StoreUnavailable("secret address"), 503, "the store is unavailable"),
        (DecodeError("secret"), 500, "what is kept under this key cannot be read"),
        (ZeroDivisionError("secret"), 500, "internal error "),
    ],
)
async def test_an_error_is_answered_by_its_kind_and_shows_no_secret(
    page: Page, error: Exception, code: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    page.runs.error = error
    found, headers, body = await page.ask("/api/run?namespace=shop&key=k")
    assert (found, headers["cache-control"]) == (code, "no-store")
    told = json.loads(body)["error"]
    assert text in told
    assert "secret" not in told
    logged = isinstance(error, ZeroDivisionError)
    assert ("secret" in caplog.text) is logged
    assert told.rpartition(" ")[2] in caplog.text or not logged


async def test_no_more_than_four_runs_are_summarised_at_once(page: Page) -> None:
    page.runs.gate.clear()
    asked = [asyncio.create_task(page.code("/api/run?namespace=shop&key=k")) for _ in range(9)]
    await wait_until(lambda: page.runs.reading == 4)
    for _ in range(20):
        await asyncio.sleep(0)
    page.runs.gate.set()
    assert await asyncio.gather(*asked) == [200] * 9
    assert page.runs.most_reading == 4


async def test_a_cancel_is_logged_once_with_its_token_and_outdates_what_is_cached(
    page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    page.viewer = Grant("ops", frozenset({"shop"}), frozenset({Verb.WRITE}))
    run = {"namespace": "shop", "key": "k"}
    for cancelled in (True, False):
        code, _, body = await page.ask("/api/cancel", json.dumps(run).encode(), JSON)
        assert code == 200
        assert json.loads(body) == {"cancelled": cancelled, "status": "cancelled"}
    assert page.outdated == [KEY, KEY]
    [line] = [record for record in caplog.records if "cancelled" in record.getMessage()]
    assert line.getMessage() == ("shop/k revision 3 cancelled on the live page by the token 'ops'")
    page.viewer = EVERYTHING
    await page.ask("/api/cancel", json.dumps(run | {"key": "l"}).encode(), JSON)
    assert caplog.messages[-1] == "shop/l revision 3 cancelled on the live page"


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b'{"namespace":"shop","key":"k"}', JSON, 200),
        (b'{"namespace":"shop","key":"k"}', JSON | {"x-headstart": ""}, 400),
        (b'{"namespace":"shop","key":"k"}', JSON | {"content-type": "text/plain"}, 400),
        (b'{"namespace":"shop","key":"k"}', JSON | {"host": "evil.example"}, 403),
        (b'{"namespace":"shop","key":"k"}' + b" " * (4096 - 30), JSON, 200),
        (b'{"namespace":"shop","key":"k"}' + b" " * (4097 - 30), JSON, 400),
        (b"{", JSON, 400),
        (b"[" * 3000, JSON, 400),
        (b"[]", JSON, 400),
        (b'{"namespace":"shop","key":1}', JSON, 400),
        (b'{"namespace":1,"key":"k"}', JSON, 400),
        (b'{"namespace":"shop","key":"\\ud800"}', JSON, 400),
        (b'{"namespace":"shop"}', JSON, 400),
    ],
)
async def test_a_cancel_is_small_json_of_this_page(
    page: Page, body: bytes, headers: dict[str, str], code: int
) -> None:
    assert (await page.ask("/api/cancel", body, headers))[0] == code
    assert bool(page.runs.asked("cancel")) is (code == 200)


async def test_who_may_not_write_cancels_nothing(page: Page) -> None:
    page.viewer = Grant("reader", frozenset({"shop"}), frozenset({Verb.READ}))
    code, _, body = await page.ask("/api/cancel", b'{"namespace":"shop","key":"k"}', JSON)
    assert (code, page.runs.asked("cancel")) == (403, [])
    assert "the token 'reader' lacks write in 'shop'" in json.loads(body)["error"]


async def test_files_are_served_with_their_kinds_and_nothing_else_is(page: Page) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/static/main.js", "text/javascript"),
        ("/static/style.css", "text/css"),
        ("/static/icon.svg", "image/svg+xml"),
    ):
        code, headers, body = await page.ask(path)
        assert (code, headers["content-type"].partition(";")[0]) == (200, kind), path
        assert body
        assert headers["x-frame-options"] == "DENY"
    for path in ("/static/none.js", "/static/__init__.py", "/static/..%2fdashboard.py"):
        code, headers, _ = await page.ask(path)
        assert code == 404
    assert page.headers == [], "the page itself is no secret"


async def test_other_hosts_are_refused_before_anything_is_looked_up(page: Page) -> None:
    for path in ("/api/run?namespace=shop&key=k", "/api/events"):
        assert await page.code(path, host="evil.example") == 403
    assert page.headers == []


def test_a_viewer_is_fed_at_once_and_then_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(routes, "monotonic", loop.time)
        page = Page()
        feeding = asyncio.create_task(page.dashboard.run())
        await asyncio.sleep(3.5)
        counters = page.dashboard.counters
        assert (len(counters.past), len(page.runs.asked("stats"))) == (3, 0), "nobody looks"
        page.dashboard.receive(Announcement(EventKind.STARTED, KEY, "r"))
        stream = page.dashboard.streams.open(View(None, whole=True), lambda: None)
        events = stream.events()
        told = []
        for _ in range(3):
            event = await anext(events)
            told.append(round(loop.time(), 3))
            assert event.startswith(b"event: tick\n")
        assert told == [3.5, 4.0, 5.0]
        assert [second.starts for second in counters.past] == [0, 0, 0, 1, 0]
        first = json.loads((await _fed(page, events)).partition(b"data: ")[2])
        assert first["process"] == {"host": "h", "pipelines": ["noop", "probe"]}
        asked = len(page.runs.asked("stats"))
        page.dashboard.streams.close(stream)
        await asyncio.sleep(2.0)
        assert len(page.runs.asked("stats")) == asked
        feeding.cancel()
        await asyncio.wait({feeding})
        with pytest.raises(CapacityExhausted, match="stops"):
            page.dashboard.streams.open(View(None, whole=True), lambda: None)

    run_virtually(main())


async def _fed(page: Page, events: Any) -> bytes:
    event: bytes = await anext(events)
    return event


async def test_what_is_announced_reaches_counts_and_runs(page: Page) -> None:
    page.dashboard.receive(Announcement(EventKind.ENDED, KEY, "r"))
    assert page.dashboard.counters.turn().ends == 1
    assert page.dashboard.recent_runs.latest(None, 9) == [KEY]
