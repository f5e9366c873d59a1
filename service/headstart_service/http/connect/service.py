"""The service over Connect: an ASGI application for the paths of its methods."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import code_pb2, status_pb2
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ...api.call_limits import CallLimits
from ...api.dependencies import Call, Dependencies
from ...api.method_table import METHOD_TABLE, Method
from ...api.methods.get_results import GetResults
from ...api.refusals import REFUSED
from ...api.request_rules import namespace_of, run_key
from ...api.results.answer import Answer
from ...api.results.outgoing import SMALL, Outgoing, Parts
from ...api.status import internal_status, status_of
from ...auth.grants import Grant, Grants, Verb
from ...base.service_methods import SERVICE
from ...domain.errors import HeadstartError, Unauthenticated
from .access import Access
from .attempt import Attempt, CallSpan, TraceCall, untraced
from .bodies import Bodies, ClientGone, Hold, opened, whole
from .call import HttpCall, while_connected
from .codecs import Codec, JsonCodec, ProtoCodec
from .errors import Refused
from .head import Head, check_verb, codec_of
from .query import message_of
from .replies import HEADERS, StreamReply, UnaryReply

Reply = UnaryReply | StreamReply

VERBS: Final = ("POST", "GET")
CORS_HEADERS: Final = (
    "authorization",
    "connect-protocol-version",
    "connect-timeout-ms",
    "traceparent",
    "tracestate",
    "x-user-agent",
)
"""What a page of an allowed origin may send, beside a content type."""
_PREFLIGHT: Final = 7200
"""Seconds for which a browser keeps what it learnt of an origin."""
_STOPS: Final = "the server is stopping"
_LAST: Final = 1.0
"""Seconds in which calls that the server ends must have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRules:
    """What all calls over HTTP share with those over gRPC, and what is their own."""

    api: Dependencies
    limits: CallLimits
    access: Access
    grants: Grants | None = None
    """The tokens; None where no call needs one."""
    outgoing: Outgoing = field(default_factory=Outgoing)
    bodies: Bodies = field(default_factory=Bodies)
    trace: TraceCall = untraced


class ConnectService:
    """Serves each method of the table under `/headstart.v1.PrecomputeService/<method>`."""

    def __init__(self, rules: ConnectRules) -> None:
        self._rules = rules
        self._codecs: dict[str, Codec] = {"json": JsonCodec(), "proto": ProtoCodec()}
        self._methods = {
            name: _Served(method, rules, self._codecs) for name, method in METHOD_TABLE.items()
        }
        self._calls: set[HttpCall] = set()
        self._all_ended = asyncio.Event()
        self._all_ended.set()
        self._stopping = False

    def routes(self) -> list[BaseRoute]:
        """Return what the HTTP port serves of it."""
        app: ASGIApp = self
        origins = self._rules.access.origins
        if origins:
            app = CORSMiddleware(app, origins, VERBS, CORS_HEADERS, max_age=_PREFLIGHT)
        return [Route(f"/{SERVICE}/{{method:path}}", app), Route("/openapi.json", _openapi)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        head = Head.of_scope(scope)
        name = scope["path_params"]["method"]
        reply: Reply = UnaryReply(send, "json")
        try:
            served = self._served(name)
            check_verb(head, served.verbs)
            if head.verb == "GET":
                codec, data = message_of(head)
                read = partial(_given, data)
            else:
                codec = codec_of(head, streams=served.method.streams)
                read = partial(self._rules.bodies.read, receive, head.headers.get("content-length"))
        except Refused as refused:
            await reply.fail(refused.status, refused.http_status, refused.headers)
            return
        reply = StreamReply(send, codec) if served.method.streams else UnaryReply(send, codec)
        await served.answer(head, codec, read, receive, reply, self._entered)

    async def drain(self, grace: float) -> None:
        """Refuse new calls from now on; after `grace` seconds end those that are under way."""
        self._stopping = True
        try:
            async with asyncio.timeout(grace):
                await self._all_ended.wait()
        except TimeoutError:
            for call in list(self._calls):
                call.stop()
            # They have no more to do than to send an error.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST):
                    await self._all_ended.wait()

    def _served(self, name: str) -> _Served:
        served = self._methods.get(name)
        if served is None:
            known = ", ".join(self._methods)
            raise Refused(
                code_pb2.UNIMPLEMENTED,
                f"{SERVICE} has no method {name[:100]!r}; it has {known}",
                http_status=404,
            )
        return served

    def _entered(self, call: HttpCall) -> None:
        """Count a call until it ends. Raises Refused when the server stops."""
        if self._stopping:
            raise Refused(code_pb2.UNAVAILABLE, _STOPS, headers={"connection": "close"})
        self._calls.add(call)
        self._all_ended.clear()
        call.add_done_callback(self._left)

    def _left(self, call: HttpCall) -> None:
        self._calls.discard(call)
        if not self._calls:
            self._all_ended.set()


async def _openapi(_: Request) -> Response:
    data = files(__package__).joinpath("openapi.json").read_bytes()
    return Response(data, media_type="application/json", headers=dict(HEADERS))


async def _given(data: bytes, _: Hold) -> bytes:
    return data


class _Served:
    """One method, inside its limit and behind its checks."""

    def __init__(self, method: Method, rules: ConnectRules, codecs: dict[str, Codec]) -> None:
        self.method = method
        self.verbs = VERBS if method.reads else VERBS[:1]
        self._rules = rules
        self._codecs = codecs
        self._handler = method.handler(rules.api)
        self._handle: Callable[[Any, Call], Any] = self._handler.handle
        self._limit = rules.limits.by_kind[method.kind]
        self._response: type[Message] = GetMessageClass(method.descriptor.output_type)
        self._request: type[Message] = method.request
        self._check = method.check
        self._observer = rules.api.observer
        self._ended = partial(rules.api.observer.ended, method.name)
        self._open = opened if method.streams else whole
        self._encoding = f"{'connect-' if method.streams else ''}content-encoding"

    async def answer(
        self,
        head: Head,
        codec: str,
        read: Callable[[Hold], Awaitable[bytes]],
        receive: Receive,
        reply: Reply,
        entered: Callable[[HttpCall], None],
    ) -> None:
        """Answer one call; then count how it ended, and send its error if it has one."""
        began = partial(self._rules.trace, self.method.name)
        attempt = Attempt(head, began, self._ended)
        try:
            call = HttpCall(head)
            with call.ending():
                try:
                    entered(call)
                    await call.within(self._call(call, codec, read, receive, reply, attempt))
                    attempt.code = code_pb2.OK
                except TimeoutError as error:
                    attempt.fail(_timed_out(call, error))
        except ClientGone:
            pass  # its code is CANCELLED
        except HeadstartError as error:
            attempt.fail(status_of(error))
            self._note(error, head, attempt)
        except Refused as error:
            attempt.fail(error.status, error.http_status, error.headers)
        except Exception as error:  # noqa: BLE001  # its text must not reach the caller
            attempt.fail(internal_status(error))
        finally:
            attempt.end()
        if attempt.status is not None:
            await reply.fail(attempt.status, attempt.http_status, attempt.headers)

    async def _call(
        self,
        call: HttpCall,
        codec: str,
        read: Callable[[Hold], Awaitable[bytes]],
        receive: Receive,
        reply: Reply,
        attempt: Attempt,
    ) -> None:
        """Check, read and serve one call, and send its response."""
        rules, form = self._rules, self._codecs[codec]
        call.head.check_version()
        call.head.check_encoding(self._encoding)
        rules.access.check(call.head)
        grant: Grant | None = None
        if rules.grants is not None:
            # Before the body is read: parsing it takes time from all other calls.
            grant = rules.grants.admit(call.head.headers.get("authorization"))
        with rules.bodies.holding() as hold:
            request = await form.decode(self._request, self._open(await read(hold)))
        attempt.begin(request)
        with attempt.span.current():
            ready = self._ready(request, grant)
            if ready is not None:
                await reply.message(await form.encode(self._response, ready.data))
                attempt.span.answered(ready.data)
                attempt.ready(self._observer.ready, complete=ready.complete)
                return
            with self._limit:
                if grant is not None:
                    self._check(request, grant)
                if self.method.streams:
                    stream = self._stream(call, request, grant, form, reply, attempt.span)
                    await while_connected(receive, stream)
                    await reply.end()
                else:
                    work = self._unary(call, request, grant, form, attempt.span)
                    await reply.message(await while_connected(receive, work))

    def _note(self, error: HeadstartError, head: Head, attempt: Attempt) -> None:
        """Log a refusal."""
        if not isinstance(error, REFUSED):
            return
        grants, request = self._rules.grants, attempt.request
        known = not isinstance(error, Unauthenticated)
        self._rules.api.refusals.note(
            self.method.name,
            error,
            token=grants.name_of(head.headers.get("authorization")) if grants and known else "",
            peer=head.peer,
            run=lambda: run_key(request) if hasattr(request, "key") else None,
        )

    def _ready(self, request: Any, grant: Grant | None) -> Answer | None:
        """Return the answer to a GetResults that needs no store, no wait and so no limit."""
        if not isinstance(self._handler, GetResults):
            return None
        if grant is not None and not grant.covers(Verb.READ, namespace_of(request), request.key):
            return None
        ready = self._handler.ready(request)
        return None if ready is None or len(ready.data) > SMALL else ready

    async def _unary(
        self, call: HttpCall, request: Any, grant: Grant | None, form: Codec, span: CallSpan
    ) -> bytes:
        response = await self._handle(request, Call(call.time_remaining(), grant))
        if not isinstance(response, bytes | Parts):
            response = response.SerializeToString()
        context: Any = call
        data = await self._rules.outgoing.admit(response, context)
        span.answered(data)
        return await form.encode(self._response, data)

    async def _stream(
        self,
        call: HttpCall,
        request: Any,
        grant: Grant | None,
        form: Codec,
        reply: Reply,
        span: CallSpan,
    ) -> None:
        context: Any = call
        known = Call(call.time_remaining(), grant)
        async with aclosing(self._handle(request, known)) as responses:
            async for response in responses:
                async with self._rules.outgoing.sending(response.data, context):
                    await reply.message(await form.encode(self._response, response.data))
                span.answered(response.data)


def _timed_out(call: HttpCall, error: TimeoutError) -> status_pb2.Status:
    """Return the status of a call that ran out of time; another TimeoutError is a mistake."""
    if call.stopped:
        return status_pb2.Status(code=code_pb2.UNAVAILABLE, message=_STOPS)
    if call.overdue:
        text = "the deadline of Connect-Timeout-Ms is over"
        return status_pb2.Status(code=code_pb2.DEADLINE_EXCEEDED, message=text)
    return internal_status(error)
