"""Measures the limits on memory and time: large runs, callers without a token, idle connections.

Each figure is compared with the same process at rest, in the same run. Exit codes: 0 every bound
was kept, 1 one was missed by more than the noise, 2 wrong arguments, 3 something could not be
measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..program import run
from .connections import CONNECTIONS
from .large import BESIDE, WATCHERS
from .strangers import HEALTH, TOKENLESS

FIGURES = (BESIDE, WATCHERS, TOKENLESS, HEALTH, CONNECTIONS)

if __name__ == "__main__":
    sys.exit(run("python -m benchmarks.limits", __doc__ or "", FIGURES, Path("build/limits")))
