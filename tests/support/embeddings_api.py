"""A local server of OpenAI's `POST /v1/embeddings`, which answers as it is scripted to."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

TOKENS = 10
"""Of each text, as it reports them."""


class EmbeddingsApi:
    """Embeds a text as its length and its number of vowels, in reverse order."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self._script: list[tuple[int, bytes | None, dict[str, str]]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.requests.append(body)
                api.keys.append(self.headers["Authorization"])
                status, content, headers = api._script.pop(0) if api._script else (200, None, {})
                if self.path != "/v1/embeddings":
                    status, content = 404, b"{}"
                content = api.answer(body) if content is None else content
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def script(self, status: int = 200, content: bytes | None = None, **headers: str) -> None:
        """Answer the next request with this; None is a right answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._script.append((status, content, named))

    def answer(self, body: dict[str, Any]) -> bytes:
        size = body.get("dimensions", 2)
        rows = [
            [float(len(text)), float(sum(map(text.count, "aeiou"))), *[0.0] * (size - 2)]
            for text in body["input"]
        ]
        data = [{"index": at, "embedding": row} for at, row in enumerate(rows)]
        tokens = TOKENS * len(rows)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return json.dumps({"object": "list", "data": data[::-1], "usage": usage}).encode()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
