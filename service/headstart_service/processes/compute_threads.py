"""Keeps numeric libraries to the threads that a worker gives them."""

from __future__ import annotations

import os


def limit_threads(threads: int) -> None:
    """Keep numpy's and torch's pools to so many threads. Call it before either is loaded.

    Two BLAS threads on two cores are 8 times slower than one as soon as one core is busy.
    """
    for pool in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(pool, str(threads))
