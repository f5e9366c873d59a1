"""A page of another origin, which calls Headstart with the official Connect client for browsers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.languages.tools import connect_clients

_PAGE = '<!doctype html><link rel="icon" href="data:,"><script src="page.js"></script>'


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def connect_page() -> Iterator[str]:
    """The origin of the page, while the context is open."""
    directory: Path = connect_clients() / "generated"
    (directory / "index.html").write_text(_PAGE)
    handler = partial(_Quiet, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="page")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
