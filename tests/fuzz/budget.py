"""How many cases each target gets, and how many have run: `make fuzz` runs at least 100,000.

FUZZ=full takes some minutes; without it, as in `make test`, a few thousand take seconds. The quick
ones are the same in every run. FUZZ_SEED chooses the full ones; it is printed.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter

FULL = os.environ.get("FUZZ") == "full"
SEED = int(os.environ.get("FUZZ_SEED", "0")) or (time.time_ns() % 2**32 if FULL else 1)
LEAST = 100_000
"""Cases of a whole full run."""
ran: Counter[str] = Counter()
"""Cases that have run, by target."""


def cases(quick: int, full: int) -> int:
    """How many of a target's cases this run wants."""
    return full if FULL else quick


def dice(target: str) -> random.Random:
    """Where a target's cases come from: the same for the same seed, whatever else runs."""
    return random.Random(f"{SEED} {target}")


def count(target: str, number: int = 1) -> None:
    """So many more cases of this target have passed."""
    ran[target] += number
