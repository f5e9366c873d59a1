"""Recognises gRPC targets of this machine, which no proxy can reach."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from headstart._transport.addresses import split_port

_SCHEME: Final = re.compile(r"(dns|ipv4|ipv6):(?://[^/]*/)?(.*)", re.DOTALL)
_LOCAL_NAMES: Final = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")


def is_loopback(target: str) -> bool:
    """Return whether every address that a gRPC target names is of this machine."""
    found = _SCHEME.fullmatch(target)
    listed = target if found is None else found[2]
    return all(_is_local(split_port(each)[0]) for each in listed.split(","))


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
