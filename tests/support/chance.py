"""Chance that can be repeated: whoever sees a failure sets the seed that was printed."""

from __future__ import annotations

import os
import random

VARIABLE = "TEST_SEED"


def seeded(test: str) -> random.Random:
    """A generator for this test; its seed is shown when the test fails."""
    seed = int(os.environ.get(VARIABLE) or random.SystemRandom().randrange(1_000_000))
    print(f"seed {seed}: repeat with {VARIABLE}={seed} pytest -m chaos -k '{test}'")
    return random.Random(seed)
