"""A reverse proxy that serves a site under a path, as others put one beside their own pages."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PREFIX = "/tools/headstart/"


@dataclass(frozen=True)
class PrefixProxy:
    """Where it is, and which paths outside its prefix it was asked for."""

    url: str
    """The site's address behind the proxy; ends with a slash."""
    outside: list[str] = field(default_factory=list)


@contextmanager
def prefix_proxy(site: str) -> Iterator[PrefixProxy]:
    """Serve `site`, a URL, under PREFIX on loopback while the context is open."""
    target = urlsplit(site).netloc
    outside: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            if not self.path.startswith(PREFIX):
                outside.append(self.path)
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
            connection = http.client.HTTPConnection(target, timeout=60)
            connection.request(self.command, f"/{self.path[len(PREFIX) :]}", body, headers)
            answer = connection.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                while piece := answer.read1():
                    self.wfile.write(piece)
                    self.wfile.flush()
            except OSError:
                pass  # the page was closed
            finally:
                connection.close()

        do_POST = do_GET  # noqa: N815  # http.server's name

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield PrefixProxy(f"http://127.0.0.1:{server.server_address[1]}{PREFIX}", outside)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
