"""Plays simulated games with and without a head start, and compares what people wait at submit.

A player plays each game twice: with its head start, and with everything computed
at submit, by the same functions in the application's own process. Both kinds of games go on at the
same time. Nothing is shortened but, with --quick, the typing. The plot goes into a file, which is
named at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx2
from tqdm import tqdm

from headstart_service.providers.words import default_words

from .beside import ROOT, STAND_IN_MEDIAN, STAND_IN_SPREAD, everything
from .people import CLUES, Player, players
from .plot import plot
from .submits import Submit, headline, table

_TIMEOUT = 90.0
"""Seconds that a player waits for an answer: more than Haiku's step may take."""
_RAMP = 2.0
"""Seconds in which connections are opened before the first player comes."""


@dataclass(frozen=True)
class Plan:
    """How much is played."""

    games: int
    within: float
    """Seconds in which players come."""
    typing: float
    """What typing times are multiplied with."""


FULL = Plan(games=200, within=120.0, typing=1.0)
QUICK = Plan(games=40, within=15.0, typing=0.2)


async def play(web: httpx2.AsyncClient, player: Player, plan: Plan, *, head_start: bool) -> Submit:
    """Play one game. Raises SystemExit with the application's answer, if it refuses."""
    await asyncio.sleep(_RAMP + player.comes[head_start])
    loop = asyncio.get_running_loop()
    begun = await _post(
        web,
        "/bridging/",
        {
            "anchor": player.anchor,
            "target": player.target,
            "recipient_type": player.recipient,
            "head_start": head_start,
        },
    )
    await asyncio.sleep(player.types * plan.typing)
    submitted = loop.time()
    answer = await _post(web, f"/bridging/{begun['id']}/clues", {"clues": player.clues[head_start]})
    waited = loop.time() - submitted
    sources = Counter(part["source"] for part in answer["parts"].values())
    return Submit(player.recipient, head_start, player.types, waited, sources)


async def _post(web: httpx2.AsyncClient, path: str, body: object) -> dict[str, Any]:
    answer = await web.post(path, json=body)
    if answer.is_error:
        raise SystemExit(f"POST {path} {body}: {answer.status_code} {answer.text}")
    decoded: dict[str, Any] = answer.json()
    return decoded


async def play_all(url: str, plan: Plan, seed: int) -> list[Submit]:
    """Every game, twice."""
    # Random choices of players, no secrets.
    coming = players(plan.games, plan.within, Random(seed), default_words(CLUES))
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    submits = []
    # Without a terminal, a line every 15 s is enough.
    every = 0.1 if sys.stderr.isatty() else 15.0
    async with httpx2.AsyncClient(
        base_url=url, timeout=_TIMEOUT, limits=limits, trust_env=False
    ) as web:
        games = [
            asyncio.create_task(play(web, player, plan, head_start=head_start))
            for player in coming
            for head_start in (True, False)
        ]
        with tqdm(total=len(games), desc="submits", unit="", mininterval=every) as bar:
            try:
                for game in asyncio.as_completed(games):
                    submits.append(await game)
                    bar.update()
            finally:
                for each in games:
                    each.cancel()
                await asyncio.gather(*games, return_exceptions=True)
    return submits


async def main() -> None:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK.games} games by people who type {1 / QUICK.typing:g} times as fast",
    )
    parser.add_argument("--games", type=int, help=f"how many (default: {FULL.games})")
    parser.add_argument("--seed", type=int, default=1, help="another one gives other people")
    parser.add_argument(
        "--plot", type=Path, default=ROOT / "build" / "demo.svg", help="where the plot goes"
    )
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    if options.games is not None:
        if options.games < 1:
            parser.error("--games must be 1 or more")
        plan = Plan(options.games, plan.within, plan.typing)
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    print("Starting Headstart and the game ...", flush=True)
    async with everything() as served:
        print(
            f"{plan.games} people come within {plan.within:g} s, each plays with and without a "
            f"head start.\nWatch it on {served.page}",
            flush=True,
        )
        submits = await play_all(served.url, plan, options.seed)
        haiku = "a stand-in for Haiku" if served.stand_in else "Haiku"
    print(f"\n{summary(submits, haiku, plan)}")
    options.plot.write_text(plot(submits, haiku, plan.typing))
    print(f"\nPlot: {options.plot}")


def summary(submits: Sequence[Submit], haiku: str, plan: Plan) -> str:
    """Return the headline, the table, and the notes that a reader needs."""
    lines = [headline(submits, haiku), table(submits, haiku)]
    if plan.typing != 1:
        lines.append(f"Typing times are those of people; here they were {plan.typing:g} of that.")
    if haiku != "Haiku":
        lines.append(
            "ANTHROPIC_API_KEY is not set: a stand-in on this machine answered for Haiku, after a\n"
            f"lognormal time with a median of {STAND_IN_MEDIAN:g} s (sigma {STAND_IN_SPREAD:g}). "
            "All else was computed."
        )
    return "\n\n".join(lines)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(main())
