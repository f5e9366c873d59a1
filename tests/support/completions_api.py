"""A server of OpenAI's chat completions of our own, for the real OpenAI SDK to talk to.

It is the server of `messages_api` with other answers:

    with CompletionsApi() as api:
        api.script(refused(429), completion("words"))   # in turn; then the default
        OpenAIModel(api_key=None, base_url=api.url, ...)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .messages_api import CLUES, DEFAULT_COUNT, MessagesApi, Reply, Request, clues_for, sample

USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


def completion(
    text: str | None,
    *,
    finish_reason: str | None = "stop",
    refusal: str | None = None,
    usage: dict[str, Any] | None = None,
    delay: float = 0.0,
) -> Reply:
    """A whole completion of this text."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    body = {
        "id": "chatcmpl-test", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": USAGE if usage is None else usage,
    }  # fmt: skip
    return Reply(200, json.dumps(body).encode(), delay=delay)


def chunks(
    texts: Sequence[str],
    *,
    finish_reason: str | None = "stop",
    pause: float = 0.0,
    dropped: bool = False,
    error: bool = False,
    broken: str = "",
    usage: dict[str, Any] | None = None,
) -> Reply:
    """A completion in chunks, one for each text.

    `dropped` closes the connection after the texts, `error` ends them with an error of the server,
    `broken` with this in place of a chunk.
    """

    def chunk(choices: list[dict[str, Any]], **more: Any) -> str:
        return json.dumps(
            {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            | {"choices": choices}
            | more
        )

    data = [chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}}])]
    data += [chunk([{"index": 0, "delta": {"content": text}}]) for text in texts]
    if error:
        data.append(json.dumps({"error": {"message": "a secret", "code": 500}}))
    elif broken:
        data.append(broken)
    elif not dropped:
        if finish_reason is not None:
            data.append(chunk([{"index": 0, "delta": {}, "finish_reason": finish_reason}]))
        data += [chunk([], usage=USAGE if usage is None else usage), "[DONE]"]
    pieces = tuple(f"data: {each}\n\n".encode() for each in data)
    return Reply(200, b"", {"content-type": "text/event-stream"}, 0.0, pieces, pause, dropped)


def refused(code: int, text: str = "a secret of the server", *, retry_after: str = "") -> Reply:
    """An error in the API's form."""
    error = {"error": {"message": text, "type": "some_error", "param": None, "code": None}}
    headers = {"retry-after": retry_after} if retry_after else {"retry-after-ms": "1"}
    return Reply(code, json.dumps(error).encode(), headers)


class CompletionsApi(MessagesApi):
    """The server, on a free port of the loopback interface. Use it as a context manager."""

    @property
    def url(self) -> str:
        """What the SDK takes as its base URL."""
        return f"{super().url}/v1"

    def _default(self, request: Request, delay: float) -> Reply:
        if request.path.partition("?")[0] != "/v1/chat/completions":
            return refused(404, "not found")
        if request.body.get("stream"):
            return chunks([f"{clue} " for clue in CLUES[:DEFAULT_COUNT]])
        form = request.body.get("response_format", {}).get("json_schema", {}).get("schema")
        if form is None:
            return completion(" ".join(CLUES[:DEFAULT_COUNT]), delay=delay)
        return completion(json.dumps(sample(form, clues_for(request.prompt))), delay=delay)
