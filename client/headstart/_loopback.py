"""Whether a gRPC target is this machine, so that no proxy can be on the way to it."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

_SCHEME: Final = re.compile(r"(dns|ipv4|ipv6):(?://[^/]*/)?(.*)", re.DOTALL)
_LOCAL_NAMES: Final = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")


def is_loopback(target: str) -> bool:
    """Return whether every address that a gRPC target names is of this machine."""
    found = _SCHEME.fullmatch(target)
    listed = target if found is None else found[2]
    return all(_is_local(_host(each)) for each in listed.split(","))


def _host(place: str) -> str:
    """Return the host of `host`, `host:port`, `[host]` or `[host]:port`."""
    if place.startswith("["):
        return place[1:].partition("]")[0]
    return place if place.count(":") > 1 else place.partition(":")[0]


def _is_local(host: str) -> bool:
    name = host.lower().rstrip(".")
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    # To connect to 0.0.0.0 or :: is to connect to this machine.
    return address.is_loopback or address.is_unspecified
