"""Measures what a submit takes with `get_or_compute`, beside pure live computation.

In every state of the service: well, late, slow, hanging, overloaded, without a store, killed. No
submit may take longer than live, the budget of 25 ms, and 5 ms for ten calls at once. Exit codes: 0
every bound was kept, 1 one was missed by more than the noise, 2 wrong arguments, 3 something could
not be measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..program import run
from .figure import FIGURE


def main() -> int:
    out = Path("build/benchmarks/never_worse")
    return run("python -m benchmarks.never_worse", __doc__ or "", [FIGURE], out)


if __name__ == "__main__":
    sys.exit(main())
