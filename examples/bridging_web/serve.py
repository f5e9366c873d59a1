"""Serves the game with a Headstart beside it, to be played in a browser: `make demo-web`."""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import suppress

from ..ports import free_port
from .beside import STAND_IN_MEDIAN, everything


async def main() -> None:
    parser = argparse.ArgumentParser(prog="demo-web", description=__doc__)
    parser.add_argument("--port", type=int, default=8090, help="of the game; 0 picks a free one")
    parser.add_argument("--http-port", type=int, default=8080, help="of Headstart's live page")
    options = parser.parse_args()
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    print("Starting Headstart and the game ...", flush=True)
    port = free_port(options.port, "the game")
    http_port = free_port(options.http_port, "the live page")
    async with everything(port=port, http_port=http_port) as served:
        print(f"\n  Play on    {served.url}\n  Watch it   {served.page}\n", flush=True)
        if served.stand_in:
            print(
                "ANTHROPIC_API_KEY is not set: a stand-in on this machine answers for Haiku, after "
                f"{STAND_IN_MEDIAN:g} s or so, with words of a fixed list.\n"
            )
        print("Ctrl-C ends it.", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(main())
