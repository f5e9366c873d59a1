"""How people play: when they come, which words they choose, how long they type.

Typing a clue takes the time of the keystroke-level model. That is 1.35 s to get ready, and 0.28 s
for each key of an average non-secretary typist. (Card, Moran and Newell, "The keystroke-level model
for user performance time with interactive systems", CACM 23(7), 1980.) Thinking of a clue takes a
lognormal time, as response times of people commonly do, and a slow player is slow with every clue.
With the chosen median and spreads of thinking, nine of ten games take 30 to 120 seconds, as the
seed observed. tests/unit/examples/test_demo.py checks that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from headstart_service.pipelines.bridging.inputs import BridgingInputs

from .inputs import refused

READY = 1.35
"""Seconds of mental preparation, the model's operator M."""
KEY = 0.28
"""Seconds per key, the model's operator K."""
THINK = 6.8
"""Seconds, the median, to think of one clue."""
THINK_SPREAD, PERSON_SPREAD = 0.7, 0.62
"""Standard deviations of the logarithm: from clue to clue, and from person to person."""
LONGEST = 150.0
"""Seconds. A faster player replaces one that would take longer, so that the demo ends."""

ENDS, CLUES = 3_000, 32_000
"""Anchors and targets are among so many of the most frequent words, clues among so many. The last
2,000 of these are not in the vocabulary: in every fourth game the model must embed a clue."""


@dataclass(frozen=True)
class Player:
    """One game as it will be played, twice: at times of their own, and with other clues."""

    comes: tuple[float, float]
    """Seconds after the demo's beginning."""
    anchor: str
    target: str
    recipient: str
    clues: tuple[tuple[str, ...], tuple[str, ...]]
    types: float
    """Seconds from the first look at the two words to submit."""


def typing_time(random: Random, clues: Sequence[str]) -> float:
    """Seconds that a person takes to think of these clues and type them."""
    while True:
        person = random.lognormvariate(0, PERSON_SPREAD)
        seconds = READY + sum(
            person * random.lognormvariate(math.log(THINK), THINK_SPREAD)
            + READY
            + KEY * (len(clue) + 1)  # one key more: Tab, or Enter after the last clue
            for clue in clues
        )
        if seconds <= LONGEST:
            return seconds


def players(count: int, within: float, random: Random, words: Sequence[str]) -> Iterator[Player]:
    """`count` players who come at random moments of `within` seconds: a Poisson process.

    Given their number, the arrivals of such a process are independent and uniform. Every other one
    plays against Haiku. `words` are the most frequent first.
    """
    for number in range(count):
        comes = (random.uniform(0, within), random.uniform(0, within))
        anchor, target = random.sample(words[:ENDS], 2)
        recipient = ("haiku", "human")[number % 2]
        game = BridgingInputs.model_validate(
            {"anchor": anchor, "target": target, "recipient_type": recipient}
        )
        clues = (_clues(game, random, words), _clues(game, random, words))
        yield Player(comes, anchor, target, recipient, clues, typing_time(random, clues[0]))


def _clues(game: BridgingInputs, random: Random, words: Sequence[str]) -> tuple[str, ...]:
    while True:
        clues = random.sample(words[:CLUES], game.clue_count)
        if not refused(game, clues):
            return tuple(clues)
