"""Ports of the demonstrations, which may run beside `make run` and beside each other."""

from __future__ import annotations

import socket


def free_port(wanted: int, what: str) -> int:
    """Return `wanted`; or 0, for any free port, after a line that names `what`, if it is taken."""
    with socket.socket() as probe:
        # As a server binds it: connections that have ended do not hold a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            print(f"Port {wanted} is taken, so {what} gets another one.", flush=True)
            return 0
    return wanted
