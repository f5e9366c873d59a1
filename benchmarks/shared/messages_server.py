"""A Messages API that allows so many calls a second, and counts what it receives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_ANSWER = {
    "id": "msg_benchmark",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-5-5",
    "content": [{"type": "text", "text": '{"words": ["river", "mist"]}'}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 40, "output_tokens": 10},
}
_ERROR = {"type": "error", "error": {"type": "rate_limit_error", "message": "too fast"}}


@dataclass
class MessagesServer:
    """What it allows, and what came."""

    rate: float
    """Calls a second; 0 refuses all."""
    latency: float = 0.5
    calls: int = 0
    refused: int = 0
    broken: int = 0
    """Calls during an outage."""
    arrivals: list[float] = field(default_factory=list)
    away_from: float = -1.0
    away_until: float = -1.0
    _level: float = 0.0
    _at: float = 0.0

    def plan_outage(self, after: float, seconds: float) -> None:
        """Answer 500 for so long, `after` seconds from now."""
        self.away_from = _now() + after
        self.away_until = self.away_from + seconds

    def answer(self) -> tuple[int, Mapping[str, object]]:
        """Return the status and body of the answer to a call that comes now."""
        now = _now()
        self.calls += 1
        self.arrivals.append(now)
        if self.away_from <= now < self.away_until:
            self.broken += 1
            return 500, _ERROR
        self._level = min(max(1.0, self.rate), self._level + (now - self._at) * self.rate)
        self._at = now
        if self._level < 1:
            self.refused += 1
            return 429, _ERROR
        self._level -= 1
        return 200, _ANSWER


def _now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def serving(server: MessagesServer) -> AsyncIterator[str]:
    """Serve on a free port; the URL."""
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_converse(reader, writer, server.answer, server.latency))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=1000)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        for task in tasks:
            task.cancel()


async def _converse(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answer: Callable[[], tuple[int, Mapping[str, object]]],
    latency: float,
) -> None:
    """Answer the calls of one connection."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            found = (line for line in head.split("\r\n") if line.startswith("content-length:"))
            length = int(next(found, ":0").partition(":")[2])
            await reader.readexactly(length)
            status, content = answer()
            # A refusal comes at once.
            await asyncio.sleep(latency if status == 200 else 0)  # noqa: PLR2004
            body = json.dumps(content).encode()
            lines = (
                f"HTTP/1.1 {status} Status",
                "content-type: application/json",
                f"content-length: {len(body)}",
            )
            writer.write("\r\n".join((*lines, "", "")).encode() + body)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()
