"""Measures what many users of one service do to each other, on real processes.

Exit codes: 0 every bound was kept, 1 one was missed by more than the noise, 2 wrong arguments, 3
something could not be measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..program import run
from .flood import FLOOD
from .hung_model import HUNG_MODEL
from .provider import PROVIDER

FIGURES = (FLOOD, HUNG_MODEL, PROVIDER)

if __name__ == "__main__":
    sys.exit(run("python -m benchmarks.shared", __doc__ or "", FIGURES, Path("build/shared")))
