"""Lets an API process give memory back to the system after large answers."""

from __future__ import annotations

import ctypes
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
