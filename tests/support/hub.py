"""A hub of models on loopback: what huggingface_hub asks to download a model."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Hub:
    """Serves directories as models, each as one commit that has the branch `main`, too."""

    def __init__(self) -> None:
        self.url = ""
        self.models: dict[tuple[str, str], Path] = {}
        """Directories by name and revision."""
        self.commits: dict[tuple[str, str], str] = {}
        self.refused: set[str] = set()
        """Names of files that are not given."""
        self.foreign = False
        """Whether it answers as something that is no hub."""

    def add(self, name: str, directory: Path, commit: str, branch: str = "main") -> None:
        """Serve `directory` as commit and branch of the model `name`."""
        for revision in (commit, branch):
            self.models[name, revision] = directory
            self.commits[name, revision] = commit

    def answer(self, path: str) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body for a path."""
        if self.foreign:
            return 200, {"Content-Type": "application/json"}, b'{"hello": "world"}'
        parts = unquote(path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, revision = "/".join(parts[2:4]), (parts[5:] or ["main"])[0]
            if (name, revision) in self.models:
                body = self._about(name, revision)
                if parts[4] == "tree":
                    body = json.dumps(self._files(name, revision)).encode()
                return 200, {"Content-Type": "application/json"}, body
        elif len(parts) > 4 and parts[2] == "resolve":
            name, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
            directory = self.models.get((name, revision))
            if file in self.refused:
                return 403, {}, b""
            if directory is not None and (directory / file).is_file():
                content = (directory / file).read_bytes()
                etag = hashlib.sha256(content).hexdigest()
                commit = self.commits[name, revision]
                return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, content
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        return 404, {"X-Error-Code": "RepoNotFound"}, b""

    def _about(self, name: str, revision: str) -> bytes:
        commit = self.commits[name, revision]
        siblings = [{"rfilename": each["path"]} for each in self._files(name, revision)]
        return json.dumps({"id": name, "sha": commit, "siblings": siblings, "tags": []}).encode()

    def _files(self, name: str, revision: str) -> Sequence[Mapping[str, object]]:
        directory = self.models[name, revision]
        return [
            {
                "type": "file",
                "path": path.relative_to(directory).as_posix(),
                "size": path.stat().st_size,
                "oid": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        ]


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve models for HF_ENDPOINT until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = hub.answer(urlsplit(self.path).path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815  # the name that the server calls

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, name="hub")
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
