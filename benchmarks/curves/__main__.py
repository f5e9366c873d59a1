"""Measures how the cost of everything grows with the work: `docs/performance.md` explains it.

Everything runs on this machine, in processes that are started for it. Exit codes: 0 every bound was
kept, 1 one was missed by more than the noise, 2 wrong arguments, 3 none was missed but something
could not be measured.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..program import Output, run
from ..results import Result
from . import ALL
from .charts import line_chart
from .report import table


def main() -> int:
    sizes = {curve.figure.name: curve.size for curve in ALL}

    def shown(results: Sequence[Result]) -> str:
        return table(results, ALL)

    def chart(result: Result) -> str:
        return line_chart(result, sizes[result.figure])

    figures = [curve.figure for curve in ALL]
    out = Path("build/benchmarks/curves")
    return run("python -m benchmarks.curves", __doc__ or "", figures, out, Output(shown, chart))


if __name__ == "__main__":
    sys.exit(main())
