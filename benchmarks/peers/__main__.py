"""Measures Headstart against what a team would use instead, on the same work.

Each peer is set up as its own documentation tells its users to, in an environment of its own that
is made at first use. A peer that cannot be installed, or that fails, is named; the others are
measured all the same. Exit codes: 0 every target was reached, 1 one was missed by more than the
noise, 2 wrong arguments, 3 none was missed but something could not be measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..program import run
from .figures import ALL

if __name__ == "__main__":
    sys.exit(run("python -m benchmarks.peers", __doc__ or "", ALL, Path("build/benchmarks/peers")))
