"""Shares out the files that this process may open, each connection being one.

A process without free descriptors accepts no connection, answers no probe and cannot reach Redis.
The gRPC port has half of them, the HTTP port a quarter; the rest is for Redis and files.
"""

from __future__ import annotations

import resource
import sys
from typing import Final

_LEAST: Final = 16


def share_of_files(share: int) -> int:
    """Return one `share`-th of the files that this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(soft // share, _LEAST)
