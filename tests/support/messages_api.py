"""A Messages API of our own, for the real Anthropic SDK to talk to.

In a test:

    with MessagesApi() as api:
        api.script(Reply.status(529), Reply.clues(["a", "b"]))   # in turn; then the default
        AnthropicModel(api_key="key", base_url=api.url, ...)
        api.requests   # what was asked, parsed

As a process of its own, which prints its URL and then serves until it is killed:

    python -m tests.support.messages_api --delay 5
    python -m tests.support.messages_api --delay 3 --spread 0.35   # a median of 3 s

Unless it is told otherwise it answers with as many clues as the game in the prompt asks for, out
of a fixed list, in the form that the request's JSON schema names.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

CLUES = [
    "nature",
    "wilderness",
    "river",
    "rain",
    "lagoon",
    "mist",
    "habitat",
    "canopy",
    "current",
    "island",
    "wildlife",
    "shelter",
    "journey",
    "shadow",
    "valley",
    "storm",
    "harvest",
    "bridge",
    "garden",
    "silence",
    "winter",
    "compass",
    "ancient",
    "mountain",
    "horizon",
    "green",
    "depth",
    "breeze",
    "cradle",
    "timber",
    "coast",
    "spirit",
    "meadow",
    "planet",
    "wanderer",
    "echo",
    "dawn",
    "root",
    "creature",
    "moss",
    "delta",
    "explorer",
    "fog",
    "tide",
    "birdsong",
    "reed",
    "twilight",
    "pebble",
    "lichen",
    "otter",
    "heron",
    "salmon",
    "kelp",
    "driftwood",
    "mangrove",
    "fern",
    "gull",
    "marsh",
    "cove",
]
"""No two of them are forms of one word."""
DEFAULT_COUNT = 8


@dataclass(frozen=True)
class Reply:
    """One HTTP answer, given after `delay` seconds."""

    code: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    pieces: tuple[bytes, ...] = ()
    """A stream's: sent one after the other, with a pause after each."""
    pause: float = 0.0
    dropped: bool = False
    """Whether the connection closes without the stream's last chunk."""

    @classmethod
    def stream(
        cls,
        texts: Sequence[str],
        *,
        stop_reason: str | None = "end_turn",
        delay: float = 0.0,
        pause: float = 0.0,
        cut: bool = False,
        dropped: bool = False,
        error: str = "",
        usage: dict[str, int] | None = None,
    ) -> Self:
        """A message as server-sent events, a piece of text each; `cut` leaves out how it ends.

        `dropped` leaves that out too, and closes the connection without the last chunk. With an
        `error` it ends in an event of that type. It counts a token for each piece.
        """
        usage = {"input_tokens": 11, "output_tokens": 1} | (usage or {})
        start = {
            "id": "msg_test", "type": "message", "role": "assistant", "model": "claude-haiku-5-5",
            "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage,
        }  # fmt: skip
        events: list[tuple[str, dict[str, Any]]] = [
            ("message_start", {"message": start}),
            ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
            ("ping", {}),
        ]
        for text in texts:
            delta = {"type": "text_delta", "text": text}
            events.append(("content_block_delta", {"index": 0, "delta": delta}))
        if error:
            events.append(("error", {"error": {"type": error, "message": "a secret"}}))
        elif not (cut or dropped):
            end = {"stop_reason": stop_reason, "stop_sequence": None}
            events += [
                ("content_block_stop", {"index": 0}),
                ("message_delta", {"delta": end, "usage": {"output_tokens": len(texts)}}),
                ("message_stop", {}),
            ]
        pieces = tuple(
            f"event: {kind}\ndata: {json.dumps({'type': kind} | data)}\n\n".encode()
            for kind, data in events
        )
        headers = {"content-type": "text/event-stream"}
        return cls(200, b"", headers, delay, pieces, pause, dropped)

    @classmethod
    def text(
        cls,
        text: str,
        *,
        stop_reason: str | None = "end_turn",
        delay: float = 0.0,
        usage: dict[str, int] | None = None,
    ) -> Self:
        """A message whose only block is `text`."""
        message = {
            "id": "msg_test",
            "type": "message",
            "role": "assistant",
            "model": "claude-haiku-5-5",
            "content": [{"type": "text", "text": text}] if text else [],
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1} | (usage or {}),
        }
        return cls(200, json.dumps(message).encode(), delay=delay)

    @classmethod
    def clues(cls, clues: list[str], *, delay: float = 0.0) -> Self:
        """A message with these clues, in the form of the bridging pipeline."""
        return cls.text(json.dumps({"clues": clues}), delay=delay)

    @classmethod
    def status(
        cls, code: int, text: str = "a secret of the server", *, retry_after: str = ""
    ) -> Self:
        """An error in the API's form. Without `retry_after` the SDK's retry follows at once."""
        error = {"type": "error", "error": {"type": "some_error", "message": text}}
        headers = {"retry-after": retry_after} if retry_after else {"retry-after-ms": "1"}
        return cls(code, json.dumps(error).encode(), headers)

    @classmethod
    def raw(cls, body: bytes) -> Self:
        """A 200 with any body, said to be JSON."""
        return cls(200, body)


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def key(self) -> str:
        """The API key: releases of the SDK differ in the header that carries it."""
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        return self.headers.get("x-api-key", bearer)

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        content = self.body["messages"][-1]["content"]
        if isinstance(content, str):
            return content
        return "".join(block.get("text", "") for block in content)


class Replying(BaseHTTPRequestHandler):
    """Writes replies."""

    protocol_version = "HTTP/1.1"

    def whole(self, reply: Reply) -> None:
        self.begin(reply, **{"content-type": "application/json"})
        self.wfile.write(reply.body)

    def begin(self, reply: Reply, **more: str) -> None:
        self.send_response(reply.code)
        length = {} if reply.pieces else {"content-length": str(len(reply.body))}
        for name, value in (more | reply.headers | length).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


class MessagesApi:
    """The server, on a free port of the loopback interface. Use it as a context manager."""

    def __init__(self, *, delay: float = 0.0, spread: float = 0.0, port: int = 0) -> None:
        """Serve on `port` (0: a free one), each default answer after `delay` seconds.

        With a `spread` that is their median: their logarithms have this standard deviation.
        """
        self.requests: list[Request] = []
        self.lookups: list[str] = []
        """The paths of what was asked by GET."""
        self.lookup_status = 200
        self.abandoned = 0
        """How many streams their callers left before the end."""
        self.left_at = 0.0
        """When a caller's connection was last seen to be closed, by the monotonic clock."""
        self._delay = delay
        self._spread = spread
        self._replies: deque[Reply] = deque()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        """What the SDK takes as its base URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def script(self, *replies: Reply) -> None:
        """Answer the next requests with these, in turn."""
        self._replies.extend(replies)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, request: Request) -> Reply:
        self.requests.append(request)
        if self._replies:
            return self._replies.popleft()
        return self._default(request, self._delay * random.lognormvariate(0, self._spread))

    def _look_up(self, path: str) -> Reply:
        """The answer to what is asked by GET."""
        return Reply(self.lookup_status, b'{"id": "m", "object": "model", "type": "model"}')

    def _default(self, request: Request, delay: float) -> Reply:
        """The answer where none is scripted."""
        return _default_reply(request, delay)

    def _wait(self, seconds: float, connection: socket.socket) -> None:
        """Wait, but no longer than the caller and the server stay.

        So no test waits for a reply's delay.
        """
        until = time.monotonic() + seconds
        while not self._closing.is_set() and (left := until - time.monotonic()) > 0:
            if select.select([connection], [], [], min(left, 0.05))[0]:
                self.left_at = time.monotonic()
                raise ConnectionAbortedError("the caller has gone")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(Replying):
            def do_GET(self) -> None:
                api.lookups.append(self.path)
                self.respond(api._look_up(self.path))

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                self.respond(api._answer(Request(self.path, headers, json.loads(raw or b"{}"))))

            def respond(self, reply: Reply) -> None:
                try:
                    api._wait(reply.delay, self.connection)
                    (self.stream if reply.pieces else self.whole)(reply)
                except OSError:
                    self.close_connection = True  # the caller has gone, as after a timeout
                    api.left_at = api.left_at or time.monotonic()

            def stream(self, reply: Reply) -> None:
                self.begin(reply, **{"transfer-encoding": "chunked"})
                try:
                    self.close_connection = reply.dropped
                    for piece in reply.pieces if reply.dropped else (*reply.pieces, b""):
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                        self.wfile.flush()
                        api._wait(reply.pause, self.connection)
                except OSError:
                    api.abandoned += 1
                    raise

        return Handler


def _default_reply(request: Request, delay: float) -> Reply:
    if request.path.partition("?")[0] != "/v1/messages":
        return Reply.status(404, "not found")
    if not request.key:
        return Reply.status(401, "no key")
    if request.body.get("stream"):
        return Reply.stream([f"{clue} " for clue in CLUES[:DEFAULT_COUNT]], delay=delay)
    schema = request.body.get("output_config", {}).get("format", {}).get("schema")
    if schema is None:
        return Reply.text(" ".join(CLUES[:DEFAULT_COUNT]), delay=delay)
    return Reply.text(json.dumps(sample(schema, clues_for(request.prompt))), delay=delay)


def clues_for(prompt: str) -> list[str]:
    """As many clues as the game in `prompt` asks for, none that it already names."""
    count, named = DEFAULT_COUNT, set(re.findall(r"\w+", prompt.lower()))
    try:
        game = json.loads(prompt)
        count = next(v for v in game.values() if isinstance(v, int))
    except (ValueError, AttributeError, StopIteration):
        pass
    return [clue for clue in CLUES if clue not in named][:count]


def sample(schema: dict[str, Any], clues: list[str]) -> Any:
    """A value of `schema` in which lists of strings are clues."""
    kind = schema.get("type")
    if kind == "object":
        return {name: sample(part, clues) for name, part in schema["properties"].items()}
    if kind == "array":
        return clues if schema["items"].get("type") == "string" else []
    return {"string": clues[0], "integer": 1, "number": 1.0, "boolean": True}.get(str(kind))


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--spread", type=float, default=0.0, help="of the delays' logarithms")
    parser.add_argument("--port", type=int, default=0, help="0, the default, picks a free one")
    arguments = parser.parse_args()
    with MessagesApi(
        delay=arguments.delay,
        spread=arguments.spread,
        port=arguments.port,
    ) as api:
        print(api.url, flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
