"""Serves the application alone: `python -m examples.bridging_web`, beside a running Headstart.

It finds Headstart as every client does (HEADSTART_ADDRESS, HEADSTART_TOKEN, …), and its model,
vocabulary and ANTHROPIC_API_KEY as a worker does. Pages watch a game's parts at the URL of
BRIDGING_WEB_HEADSTART, Headstart's HTTP port, which must allow their origin.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from contextlib import suppress

import uvicorn

from headstart import PrecomputeClient
from headstart_service.config.loading import load_settings
from headstart_service.domain.errors import HeadstartError

from .app import create_app
from .live import open_live


class _Server(uvicorn.Server):
    """Says where it serves, once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            print(f"Word bridge on http://{self.config.host}:{port}/", flush=True)


async def serve(host: str, port: int) -> None:
    """Serve until a signal comes."""
    stand_in = os.environ.get("BRIDGING_WEB_STAND_IN") == "1"
    async with PrecomputeClient() as client, open_live(load_settings({})) as live:
        headstart = os.environ.get("BRIDGING_WEB_HEADSTART", "")
        app = create_app(client, live, stand_in=stand_in, headstart=headstart)
        await _Server(
            uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False)
        ).serve()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bridging_web", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090, help="0 picks a free one")
    options = parser.parse_args()
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(serve(options.host, options.port))
    except HeadstartError as error:
        sys.exit(f"bridging_web: {error}")


if __name__ == "__main__":
    main()
