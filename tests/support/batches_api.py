"""A Messages API with Message Batches, for the real Anthropic SDK to talk to.

with BatchesApi() as api:
    ...                       # a call waits in a batch
    api.end("Because.")       # the last batch ends; see `end` for other results
    api.batches               # what was handed in
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.messages_api import MessagesApi, Reply, Request

_PATH = "/v1/messages/batches"
_TIME = "2026-11-30T12:00:00Z"


@dataclass
class Batch:
    """One batch."""

    id: str
    requests: list[dict[str, Any]]
    status: str = "in_progress"
    lines: bytes = b""
    polls: int = 0
    cancels: int = 0


@dataclass
class Result:
    """How the request of a batch ends."""

    kind: str = "succeeded"
    text: str = "Because."
    usage: dict[str, int] = field(default_factory=dict)
    stop_reason: str = "end_turn"
    raw: bytes = b""
    """Instead of a result's line."""


class BatchesApi(MessagesApi):
    """The server. `requests` are direct calls alone."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Batch] = []
        self.refusals: deque[Reply] = deque()
        """The answers to the next calls of batches: errors."""
        self.refused_cancels: deque[Reply] = deque()
        """The answers to the next calls that cancel a batch: errors."""
        self.before_cancel: Result | None = None
        """How a batch ends right before it is canceled."""
        self.slowness = 0.0
        """Seconds after which a call that hands a batch in is answered."""
        self.ends_canceled = Result("canceled")
        """How a batch ends that is canceled; it is canceling until `end` if its kind is empty."""

    def end(self, result: Result | None = None, batch: Batch | None = None) -> None:
        """End a batch, by default the last one."""
        ended = batch or self.batches[-1]
        ended.lines = _line(ended, result or Result())
        ended.status = "ended"

    def _answer(self, request: Request) -> Reply:
        path = request.path.partition("?")[0]
        if not path.startswith(_PATH):
            return super()._answer(request)
        if self.refusals:
            return self.refusals.popleft()
        if path == _PATH:
            self.batches.append(Batch(f"msgbatch_{len(self.batches)}", request.body["requests"]))
            return replace(self._about(self.batches[-1]), delay=self.slowness)
        if self.refused_cancels:
            return self.refused_cancels.popleft()
        batch = self._named(path)
        if self.before_cancel:
            self.end(self.before_cancel, batch)
        batch.cancels += 1
        if batch.status == "ended":
            return Reply.status(400)
        if self.ends_canceled.kind:
            self.end(self.ends_canceled, batch)
        else:
            batch.status = "canceling"
        return self._about(batch)

    def _look_up(self, path: str) -> Reply:
        if not path.startswith(_PATH):
            return super()._look_up(path)
        if self.refusals:
            return self.refusals.popleft()
        batch = self._named(path)
        if path.endswith("/results"):
            return Reply(200, batch.lines, {"content-type": "application/x-jsonl"})
        batch.polls += 1
        return self._about(batch)

    def _named(self, path: str) -> Batch:
        name = path.removeprefix(_PATH).split("/")[1]
        return next(batch for batch in self.batches if batch.id == name)

    def _about(self, batch: Batch) -> Reply:
        ended = batch.status == "ended"
        counts = dict.fromkeys(("canceled", "errored", "expired", "succeeded"), 0)
        about = {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": batch.status,
            "request_counts": counts | {"processing": 0 if ended else len(batch.requests)},
            "created_at": _TIME,
            "expires_at": _TIME,
            "ended_at": _TIME if ended else None,
            "results_url": f"{self.url}{_PATH}/{batch.id}/results" if ended else None,
        }
        return Reply(200, json.dumps(about).encode())


def _line(batch: Batch, result: Result) -> bytes:
    if result.raw:
        return result.raw
    told: dict[str, Any] = {"type": result.kind}
    if result.kind == "succeeded":
        reply = Reply.text(result.text, stop_reason=result.stop_reason, usage=result.usage)
        told["message"] = json.loads(reply.body)
    if result.kind == "errored":
        told["error"] = {"type": "error", "error": {"type": "api_error", "message": "a secret"}}
    name = batch.requests[0]["custom_id"]
    return json.dumps({"custom_id": name, "result": told}).encode() + b"\n"
