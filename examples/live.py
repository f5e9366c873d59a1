"""Serves, and plays games at a human pace for as long as it runs: something to watch on the page.

No API key is needed: the games are for people, and beside them baskets are checked out, some of
which fail. Players submit after some seconds, change their minds, or never come back.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from headstart import HeadstartError, PrecomputeClient, RecipientType

from .ports import free_port

ROOT = Path(__file__).parent.parent
WORDS = (
    *("ocean", "forest", "music", "winter", "doctor", "garden", "coffee", "history", "silence"),
    *("engine", "river", "candle", "market", "shadow", "bridge", "letter", "mountain", "clock"),
)


@asynccontextmanager
async def server(http_port: int, data_dir: str) -> AsyncIterator[tuple[str, str]]:
    """Run `headstart serve` on a free gRPC port; gives its address and its page's."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headstart_service", "serve"),
        *("--grpc-port", "0", "--http-port", str(http_port), "--data-dir", data_dir),
        *("--pipelines", "examples.live_pipelines:CHECKOUT"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
    )
    assert process.stdout is not None
    output, page, address = "", "", ""
    try:
        async for line in process.stdout:
            output += line.decode()
            if found := re.search(r"live page on (\S+)", line.decode()):
                page = found[1]
            if found := re.search(r"serves on (\S+)\. Try", line.decode()):
                address = found[1]
                break
        if not address:
            raise SystemExit(f"the server did not start:\n{output}")
        reading = asyncio.create_task(_read_on(process.stdout))
        yield address, page
        reading.cancel()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _read_on(stream: asyncio.StreamReader) -> None:
    """Discard its log: a full pipe would block the server."""
    async for _ in stream:
        pass


async def game(client: PrecomputeClient, number: int, slowness: float) -> None:
    """One player's game: begins, thinks, perhaps changes a word, submits or goes away."""
    key = f"game-{number:04}"
    anchor, target, other = random.sample(WORDS, 3)
    await client.start_bridging(key, anchor, target, RecipientType.HUMAN)
    await asyncio.sleep(random.uniform(1, 9) * slowness)
    if random.random() < 0.15:
        await client.start_bridging(key, anchor, other, RecipientType.HUMAN)
    if random.random() < 0.9:
        await client.get_results(key, wait=2)
    if random.random() < 0.05:
        await client.get_results(f"{key}-mistyped")


async def basket(client: PrecomputeClient, number: int, slowness: float) -> None:
    """One customer: is impatient, or gives up."""
    key = f"basket-{number:04}"
    inputs = {"customer": number, "items": random.randint(1, 6), "trouble": 0.25}
    await client.start(key, "checkout", inputs, namespace="shop")
    await asyncio.sleep(random.uniform(0.5, 5) * slowness)
    if random.random() < 0.1:
        await client.cancel(key, namespace="shop")
    await client.get_results(key, namespace="shop", wait=random.choice([0, 0, 0.5, 3]))


async def quietly(player: Awaitable[None]) -> None:
    """Await one player; the page shows what goes wrong."""
    with suppress(HeadstartError):
        await player


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http-port", type=int, default=8080, help="where the page is")
    parser.add_argument("--pace", type=float, default=1.0, help="more than 1 is slower")
    options = parser.parse_args()
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    print("Starting a server ...", flush=True)
    http_port = free_port(options.http_port, "the live page")
    with tempfile.TemporaryDirectory(prefix="headstart-live-") as data_dir:
        async with server(http_port, data_dir) as (address, page):
            print(f"\n  Watch it on {page}\n\nCtrl-C ends it.", flush=True)
            async with PrecomputeClient(address) as client, asyncio.TaskGroup() as players:
                for number in itertools.count(1):
                    play = game if random.random() < 0.6 else basket
                    players.create_task(quietly(play(client, number, options.pace)))
                    await asyncio.sleep(random.expovariate(1.2 / options.pace))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(main())
