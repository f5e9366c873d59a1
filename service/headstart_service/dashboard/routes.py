"""The live page of an API process: its routes, and the task that feeds it."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from time import monotonic
from typing import Any, Final

from google.protobuf.message import DecodeError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..domain import Announcement, Inspection, RunKey, Status, StepState
from ..domain.causes import Facts
from ..domain.errors import (
    CapacityExhausted,
    HeadstartError,
    InvalidRequest,
    PermissionDenied,
    RecordDamaged,
    RunNotFound,
    StoreUnavailable,
    Unauthenticated,
    Violation,
)
from ..domain.log_fields import fields
from ..domain.run_store import RunStore
from ..pipeline.registry import Registry
from .access import (
    HEADERS,
    PAGE_HEADER,
    Door,
    view_of,
    viewer_of,
)
from .call_counters import Counters
from .event_streams import EventResponse, Streams
from .item_view import FailedItem, failed_items
from .problems import ReadFacts
from .recent_runs import RecentRuns
from .run_view import RunView, results_of, run_view
from .snapshots import Snapshots
from .value_view import TAIL, Value, growing_of, values_of
from .viewer import Admit

log = logging.getLogger(__name__)

_STATIC = files(__package__) / "static"
_KINDS: Final = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_SECOND: Final = 1.0
_LARGEST_BODY: Final = 4096
_INSPECTIONS: Final = 4
"""Runs whose values are summarised at once: one may be megabytes."""
_CODES: Final[tuple[tuple[type[HeadstartError], int], ...]] = (
    (InvalidRequest, 400),
    (Unauthenticated, 401),
    (PermissionDenied, 403),
    (RunNotFound, 404),
    (RecordDamaged, 500),
    (CapacityExhausted, 503),
    (StoreUnavailable, 503),
)

Subscribed = Callable[["Dashboard"], Coroutine[Any, Any, None]]
Refused = Callable[[HeadstartError, Request], None]
"""Called with each error that the server raises on purpose."""
Endpoint = Callable[[Request], Awaitable[Response | EventResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the page may do and says of its process."""

    door: Door
    about: dict[str, Any]
    """Shown as it is: host, version and so on."""
    facts: ReadFacts = Facts
    """Returns what the process knows of its own problems."""


async def _never(_: Dashboard) -> None:
    """Stand for a store that announces nothing."""
    await asyncio.Event().wait()


class Dashboard:
    """Counts calls always; receives announcements and reads the store while a viewer is there."""

    def __init__(
        self,
        runs: RunStore,
        registry: Registry,
        admit: Admit,
        rules: Rules,
        outdate: Callable[[RunKey], None] = lambda _: None,
        subscribed: Subscribed = _never,
        refused: Refused = lambda _, __: None,
    ) -> None:
        """Serve `runs`; pass a run that is cancelled here to `outdate` before the answer.

        `subscribed` keeps a page subscribed until it is cancelled, while a viewer is there.
        `refused` gets the errors of requests.
        """
        self._refused = refused
        self._runs = runs
        self._registry = registry
        self._admit = admit
        self._rules = rules
        self._outdate = outdate
        self._subscribed = subscribed
        self.counters = Counters()
        self.recent_runs = RecentRuns(runs, registry)
        about = {**rules.about, "pipelines": sorted(pipeline.name for pipeline in registry)}
        self._snapshots = Snapshots(runs, self.recent_runs, self.counters, about, rules.facts)
        self.streams = Streams(self._snapshots)
        self._inspections = asyncio.Semaphore(_INSPECTIONS)
        self._files = {
            entry.name: (entry.read_bytes(), _KINDS[entry.name.rpartition(".")[2]])
            for entry in _STATIC.iterdir()
            if entry.name.rpartition(".")[2] in _KINDS
        }

    def receive(self, announcement: Announcement) -> None:
        """Pass an announcement to the counters and the recent runs."""
        self.counters.receive(announcement)
        self.recent_runs.receive(announcement)

    def opened(self) -> None:
        """Announcements arrive, and earlier ones were lost."""
        self.counters.announced = True
        self.recent_runs.regained()
        self._snapshots.regained()

    def closed(self) -> None:
        """Announcements arrive no more."""
        self.counters.announced = False

    async def run(self) -> None:
        """Count seconds, and send them to every viewer, for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._feed(group)
        finally:
            self.streams.end()

    async def _feed(self, group: asyncio.TaskGroup) -> None:
        turn = monotonic() + _SECOND
        subscribed: asyncio.Task[None] | None = None
        while True:
            # One at a time: the end of an earlier one would close the page to announcements.
            if subscribed is not None and subscribed.done():
                subscribed = None
            if self.streams.watched and subscribed is None:
                subscribed = group.create_task(self._subscribed(self), name="page's announcements")
            elif not self.streams.watched and subscribed is not None:
                subscribed.cancel()  # again each second: redis-py may swallow one
            await self.streams.joined(max(0.0, turn - monotonic()))
            due = monotonic() >= turn
            if due:
                self.counters.turn()
                turn = max(turn + _SECOND, monotonic())
            if self.streams.watched:
                try:
                    await self.streams.publish(fresh_only=not due)
                except Exception:
                    log.exception("the live page could not be fed")

    def routes(self) -> list[BaseRoute]:
        """What the HTTP port serves of it."""
        return [
            Route("/", self._answered(self._page)),
            Route("/static/{name}", self._answered(self._static)),
            Route("/api/events", self._answered(self._events)),
            Route("/api/run", self._answered(self._run)),
            Route("/api/cancel", self._answered(self._cancel), methods=["POST"]),
        ]

    async def _page(self, _: Request) -> Response:
        return self._file("index.html")

    async def _static(self, request: Request) -> Response:
        return self._file(request.path_params["name"])

    def _file(self, name: str) -> Response:
        if name not in self._files:
            return Response("no such file\n", 404, HEADERS, "text/plain")
        data, kind = self._files[name]
        return Response(data, 200, HEADERS, kind)

    async def _events(self, request: Request) -> EventResponse:
        self._rules.door.check(request)
        authorization = request.headers.get("authorization")
        namespace = request.query_params.get("namespace", "")

        def allowed() -> object:
            return view_of(self._admit(authorization), namespace)

        view = view_of(self._admit(authorization), namespace)
        return EventResponse(self.streams, self.streams.open(view, allowed))

    async def _run(self, request: Request) -> Response:
        self._rules.door.check(request)
        viewer = viewer_of(request, self._admit)
        key = _key(request.query_params)
        view_of(viewer, key.namespace)
        async with self._inspections:
            look = await self._runs.inspect(key)
            growing = await self._growing(look)
            shown, values, failed = await asyncio.to_thread(self._shown, look)
        return _json(
            {
                "run": shown.as_json(),
                "values": [*values, *growing],
                "failed_items": failed,
                "lives_for": look.snapshot.lives_for,
                "may_cancel": viewer.writes(key.namespace) and not shown.status.ended,
            }
        )

    def _shown(self, look: Inspection) -> tuple[RunView, list[Value], dict[str, list[FailedItem]]]:
        """Summarise a run: its state, its values, and the failed items of its steps."""
        results = results_of(look)
        return run_view(look, self._registry), values_of(results), failed_items(results)

    async def _growing(self, look: Inspection) -> list[Value]:
        """What steps that stream have given, where that is not their value."""
        snapshot = look.snapshot
        ended = all(state is StepState.COMPLETED for state in snapshot.states.values())
        if ended or snapshot.summary.status is Status.PENDING:
            return []
        with suppress(RunNotFound):
            read = await self._runs.read_partials(snapshot.summary.key, {}, follow=False, tail=TAIL)
            if read.run == snapshot.run:
                return growing_of(read.pieces, snapshot.states)
        return []

    async def _cancel(self, request: Request) -> Response:
        self._rules.door.check(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind != "application/json" or not request.headers.get(PAGE_HEADER):
            rule = (
                f"must be JSON, with the header {PAGE_HEADER}, which no other site's page can send"
            )
            raise InvalidRequest([Violation("request", rule)])
        viewer = viewer_of(request, self._admit)
        body = await _body(request)
        key, revision = _key(body), _revision(body)
        if not viewer.writes(key.namespace):
            rule = f"the token {viewer.name!r} lacks write in {key.namespace[:64]!r}"
            raise PermissionDenied("namespace", rule, "write")
        cancelled = await self._runs.cancel(key, revision)
        self._outdate(key)
        if cancelled.cancelled:
            # The line that the API writes for a cancel, with the token's name.
            attributes = fields(
                *("run.cancelled", key),
                method="POST /api/cancel",
                outcome="cancelled",
                revision=cancelled.revision,
                token=viewer.name,
            )
            by = f" by the token {viewer.name!r}" if viewer.name else ""
            text = "%s revision %d cancelled on the live page%s"
            log.info(text, key, cancelled.revision, by, extra=attributes)
        return _json({"cancelled": cancelled.cancelled, "status": cancelled.status.value})

    def _answered(self, endpoint: Endpoint) -> Endpoint:
        """Turn what it raises into an answer, without the text of what was raised by mistake."""

        async def answer(request: Request) -> Response | EventResponse:
            try:
                return await endpoint(request)
            except HeadstartError as error:
                self._refused(error, request)
                code = next((code for kind, code in _CODES if isinstance(error, kind)), 500)
                text = str(error)
                if isinstance(error, StoreUnavailable):
                    text = "the store is unavailable"
                return _json({"error": text}, code)
            except DecodeError:
                return _json({"error": "what is kept under this key cannot be read"}, 500)
            except Exception:
                error_id = uuid.uuid4().hex[:12]
                log.exception("internal error %s", error_id)
                return _json({"error": f"internal error {error_id}"}, 500)

        return answer


async def _body(request: Request) -> dict[str, Any]:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > _LARGEST_BODY:
            raise InvalidRequest([Violation("body", f"must be at most {_LARGEST_BODY} bytes")])
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest([Violation("body", "must be JSON")]) from error
    if not isinstance(body, dict):
        raise InvalidRequest([Violation("body", "must be an object")])
    return body


def _key(parameters: Any) -> RunKey:
    """The run that a request names. Raises InvalidRequest."""
    namespace, key = parameters.get("namespace", ""), parameters.get("key", "")
    if not isinstance(namespace, str) or not isinstance(key, str):
        raise InvalidRequest([Violation("key", "must be a text")])
    found = RunKey(namespace, key)
    try:
        violations = found.violations()
    except UnicodeEncodeError:
        violations = [Violation("key", "must be text that UTF-8 has")]
    if violations:
        raise InvalidRequest(violations)
    return found


def _revision(body: dict[str, Any]) -> int:
    """The revision that a request names, 0 if it names none. Raises InvalidRequest."""
    revision = body.get("revision", 0)
    if not isinstance(revision, int) or isinstance(revision, bool) or revision < 0:
        raise InvalidRequest([Violation("revision", "must be a whole number, 0 or more")])
    return revision


def _json(content: dict[str, Any], code: int = 200) -> Response:
    return JSONResponse(content, code, HEADERS)
