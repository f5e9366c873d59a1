"""Measures Headstart against what it is built on and against what one would use instead.

Everything runs on this machine, in processes that are started for it: a Valkey, API processes,
workers, and the servers that they are compared with. Exit codes: 0 every target was reached, 1 one
was missed by more than the noise, 2 wrong arguments, 3 none was missed but a figure failed. What is
left out, because a tool is missing, is named at the start and counts for none of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .figures import ALL
from .program import run

if __name__ == "__main__":
    sys.exit(run("python -m benchmarks", __doc__ or "", ALL, Path("build/benchmarks")))
