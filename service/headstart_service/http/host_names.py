"""The names by which this machine alone is reached, against DNS rebinding.

A page of any site can have its own name resolve to this machine, and then reads answers as its own.
"""

from __future__ import annotations

import ipaddress
import socket


def is_own_name(header: str, host: str) -> bool:
    """Whether a Host header names this machine, or `host`, which it listens on, or an address."""
    name = _without_port(header).lower().rstrip(".")
    if name in ("localhost", host.lower(), socket.gethostname().lower()):
        return True
    if name.endswith(".localhost"):
        return True
    try:
        # No caller can make an address mean another host.
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _without_port(header: str) -> str:
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0]
