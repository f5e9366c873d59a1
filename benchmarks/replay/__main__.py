"""Replays a trace of users at twice the load that fits, by need and by arrival.

The trace is made from documented distributions and a seed: benchmarks/replay/trace.py. Exit codes:
0 it was measured, 2 wrong arguments, 3 it could not be measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..program import run
from .figure import REPLAY

if __name__ == "__main__":
    sys.exit(
        run("python -m benchmarks.replay", __doc__ or "", [REPLAY], Path("build/benchmarks/replay"))
    )
