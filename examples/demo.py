"""Plays bridging games with and without a head start, against a server of its own.

With ANTHROPIC_API_KEY set, Claude Haiku plays too; without it the games are for people alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headstart import PrecomputeClient, RecipientType, Results

GAMES = [
    ("ocean", "forest"),
    ("music", "winter"),
    ("doctor", "garden"),
    ("coffee", "history"),
    ("silence", "engine"),
]
WAIT = 60.0


@asynccontextmanager
async def server(data_dir: str) -> AsyncIterator[str]:
    """Run `headstart serve` on free ports; gives its address once it serves."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headstart_service", "serve"),
        *("--grpc-port", "0", "--http-port", "0", "--data-dir", data_dir),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            if found := re.search(r"serves on (\S+)\. Try", line.decode()):
                yield found[1]
                break
        else:
            raise SystemExit("the server did not start: try `make run` to see why")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def without_head_start(
    client: PrecomputeClient, key: str, words: tuple[str, str], recipient: RecipientType
) -> float:
    """Everything is computed when the user submits. Seconds that the user waits."""
    submitted = time.perf_counter()
    await client.start_bridging(key, *words, recipient)
    await client.get_results(key, wait=WAIT)
    return time.perf_counter() - submitted


async def with_head_start(
    client: PrecomputeClient,
    key: str,
    words: tuple[str, str],
    recipient: RecipientType,
    think: float,
) -> tuple[float, Results]:
    """Everything is computed while the user types. Seconds that the user waits."""
    await client.start_bridging(key, *words, recipient)
    await asyncio.sleep(think)
    submitted = time.perf_counter()
    results = await client.get_results(key, wait=WAIT)
    return time.perf_counter() - submitted, results


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--think", type=float, default=2.0, help="seconds that the user types")
    options = parser.parse_args()
    has_key = bool(os.environ.get("ANTHROPIC_API_KEY"))
    recipient = RecipientType.HAIKU if has_key else RecipientType.HUMAN
    live, ahead, played = [], [], []
    print("Starting a server ...", flush=True)
    with tempfile.TemporaryDirectory(prefix="headstart-demo-") as data_dir:
        async with server(data_dir) as address, PrecomputeClient(address) as client:
            print(f"Playing {len(GAMES)} games for {recipient}, twice each ...\n", flush=True)
            for number, words in enumerate(GAMES):
                live.append(await without_head_start(client, f"live-{number}", words, recipient))
                # The other way round, so that nothing of the first game can be of use.
                swapped = (words[1], words[0])
                waited, results = await with_head_start(
                    client, f"ahead-{number}", swapped, recipient, options.think
                )
                ahead.append(waited)
                played.append(results)
    show(live, ahead, played, options.think)


def show(live: list[float], ahead: list[float], played: list[Results], think: float) -> None:
    """Print what it took, as medians over all games."""
    print(f"{'step':<28}{'computed in':>12}")
    for step in played[0].steps:
        times = [r.steps[step].elapsed for r in played]
        known = [t.total_seconds() for t in times if t is not None]
        print(f"{step:<28}{milliseconds(known) if known else played[0].steps[step].state:>12}")
    ratio = statistics.median(live) / statistics.median(ahead)
    print(f"\n{'wait at submit':<28}{'median':>12}{'longest':>12}")
    for name, waits in (("without a head start", live), (f"with one ({think:g} s typing)", ahead)):
        print(f"{name:<28}{milliseconds(waits):>12}{milliseconds([max(waits)]):>12}")
    print(f"{'ratio':<28}{ratio:>11.0f}x")
    last = played[-1]
    if last.bridging and last.bridging.lexical_bridge:
        first, second = GAMES[-1]
        print(f"\n{second} -> {first}: {', '.join(last.bridging.lexical_bridge)}")


def milliseconds(values: list[float]) -> str:
    return f"{statistics.median(values) * 1000:.1f} ms"


if __name__ == "__main__":
    asyncio.run(main())
