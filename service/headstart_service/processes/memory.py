"""Sets up the memory of an API process: what it gives back, and what it never collects."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
_M_TRIM_THRESHOLD: Final = -1
_LARGE: Final = 256 * 1024
"""Bytes from which on a block is mapped by itself, and unmapped when it is freed."""


def return_large_blocks() -> None:
    """Have the C library return each large block when it is freed; do nothing where it cannot.

    By default glibc raises its threshold to 32 MB with the first block of that size that is freed.
    From then on answers of megabytes lie in its arenas, between small blocks that keep them there.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE)


def keep_from_collector() -> None:
    """Have the garbage collector pass over all objects of now: they stay while the process lives.

    A process that is ready has some 80,000. Visiting them all would stop its calls for 15 ms.
    """
    gc.collect()
    gc.freeze()
